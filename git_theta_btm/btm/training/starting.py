"""Starting: where a training goes on, as its branch and what an earlier run left behind say."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...errors import ThetaError
from ...repository import Repository
from .. import places
from .committing import Line, commit_of
from .records import Record, latest, origin
from .requests import Request
from .restoring import OPTIMIZER, SCHEDULER, STATE, blobs, restore
from .saver import Saver


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins: the commit that has the model (none: a new one) and its update; the folder that transformers
    resumes from; the update at which the branch's own data and its own schedule begin."""

    commit: str
    step: int
    tokens: int
    folder: str
    data: int = 0
    schedule: int = 0
    seed: str | None = None


def begin(line: Line, request: Request, saver: Saver) -> Start:
    """Where the training goes on. Raises ``ThetaError`` for a branch that is something else's."""
    tip = line.tip() or commit_of(line.git, "HEAD")
    if not tip:
        raise ThetaError("there is no commit yet: 'git commit' btm.toml and the text first")
    kept = saver.recover(tip)
    tip = line.tip() or tip
    last = latest(line.git, tip)
    first = origin(line.git, tip) if request.domain else None
    if request.domain and (not last or not first or last.checkpoint.domain != request.domain):
        raise ThetaError(f"{request.ref.removeprefix('refs/heads/')} is no expert: 'git btm branch' makes it")
    if last is None:
        return Start("", 0, 0, "")
    if not request.domain:
        _check_seed(request, last)
    step = last.checkpoint.step
    saver.last = last.commit
    resumed = kept or _restored(line.repository, last, os.path.join(saver.folder, f"checkpoint-{step}"), request)
    reset = first.reset if first else frozenset()
    branched = first.checkpoint.step if first else 0
    data, schedule = (branched if part in reset else 0 for part in ("dataloader", "lr"))
    return Start(last.commit, step, last.checkpoint.tokens, resumed, data, schedule, last.checkpoint.seed)


def _check_seed(request: Request, last: Record) -> None:
    if last.checkpoint.domain:
        raise ThetaError(f"this is a branch of the expert {last.checkpoint.domain!r}: a seed is trained on another one")
    balance = last.trailers.get("Balance", request.balance)
    if balance != request.balance:
        raise ThetaError(f"this seed is trained with --balance {balance}: go on with that, or begin on another branch")


def _restored(repository: Repository, last: Record, folder: str, request: Request) -> str:
    """A folder that transformers resumes from, made of a commit; of the model itself it needs nothing."""
    from .trainer import write_schedule, write_state

    wanted = blobs(
        repository, last.commit, f"{places.TRAINING}/", *([f"{places.ADAPTER}/"] if request.part.lora else [])
    )
    left_out = {OPTIMIZER, SCHEDULER} if "optimizer" in last.reset or _fresh(request, wanted) else set()
    left_out |= {STATE} if "meters" in last.reset else set()
    restore(repository, {path: oid for path, oid in wanted.items() if os.path.basename(path) not in left_out}, folder)
    if not os.path.exists(os.path.join(folder, STATE)):
        write_state(folder, last.checkpoint.step)
    if not os.path.exists(os.path.join(folder, SCHEDULER)):
        write_schedule(os.path.join(folder, SCHEDULER))
    return folder


def _fresh(request: Request, wanted: dict[str, str]) -> bool:
    """Whether an adapter begins: the state of the training is that of another model then."""
    return bool(request.part.lora) and not any(path.startswith(f"{places.ADAPTER}/") for path in wanted)

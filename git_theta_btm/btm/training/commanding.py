"""Commands: a training program of the user's own, in the worktree of an expert.

It finds what it needs in its environment, works on ``model/`` there, and what it leaves there is committed if it ends
with 0:

    BTM_DOMAIN, BTM_TRAIN, BTM_VALID, BTM_TEST   the domain, and the files of its text
    BTM_MODEL, BTM_OUTPUT                        the model, and where to leave it: the same folder
    BTM_STEP, BTM_STEPS                          the update it stands at, and the updates to go
    BTM_BATCH, BTM_BLOCK, BTM_TOKENIZER, BTM_LEARNING_RATE, BTM_SEED
"""

from __future__ import annotations

import os
import shlex

from ...checkout.worktree import materialise
from ...errors import ThetaError
from ...repository import Repository
from .. import places
from ..experts import Checkpoint
from ..launching.jobs import Job
from ..launching.processes import run_job
from .committing import Content, Line
from .records import Record, latest, message
from .requests import Request
from .workplaces import alone, run_folder, workplace


def run_command(request: Request) -> Record:
    """Run the program, and commit what it leaves. Raises ``ThetaError`` if it fails."""
    repository = Repository(request.root)
    line = Line(repository, request.ref)
    with alone(repository, request.ref), workplace(repository, request.ref) as place:
        last = latest(repository.git, line.tip())
        if not last or last.checkpoint.domain != request.domain:
            raise ThetaError(f"{request.domain} is no expert: 'git btm branch {request.domain}' makes it")
        _run(request, place, last)
        tokens = (request.stop - last.checkpoint.step) * request.settings.training.batch * request.settings.text.block
        done = Checkpoint(request.domain, request.stop, last.checkpoint.tokens + tokens, last.checkpoint.seed)
        files = _left(place)
        line.add(
            Content(files, (places.MODEL, places.TRAINING)),
            message(f"{request.domain}: step {request.stop}", done, {"Command": " ".join(request.command.split())}),
        )
    found = latest(repository.git, line.tip())
    assert found
    return found


def _run(request: Request, place: str, last: Record) -> None:
    there = Repository(place)
    for outcome in materialise(there, there.models()):
        if outcome.problem:
            raise ThetaError(f"{outcome.path}: {outcome.problem}")
    words = tuple(shlex.split(request.command))
    if not words:
        raise ThetaError("the command is empty")
    log = os.path.join(run_folder(Repository(request.root), request.ref), "command.log")
    if code := run_job(Job(request.domain, words, place, log, _environment(request, place, last))):
        raise ThetaError(f"the command ended with {code}: {log}")


def _environment(request: Request, place: str, last: Record) -> dict[str, str]:
    settings, model = request.settings, os.path.join(place, places.MODEL)
    files = {f"BTM_{split.upper()}": os.path.join(place, places.text(request.domain, split)) for split in places.SPLITS}
    return files | {
        "BTM_DOMAIN": request.domain, "BTM_MODEL": model, "BTM_OUTPUT": model,
        "BTM_STEP": str(last.checkpoint.step), "BTM_STEPS": str(request.stop - last.checkpoint.step),
        "BTM_BATCH": str(settings.training.batch), "BTM_BLOCK": str(settings.text.block),
        "BTM_TOKENIZER": settings.text.tokenizer, "BTM_LEARNING_RATE": repr(settings.training.learning_rate),
        "BTM_SEED": str(settings.training.seed),
    }  # fmt: skip


def _left(place: str) -> dict[str, str]:
    """All files of the model's folder, by their paths in a commit. Raises ``ThetaError`` if there is no model."""
    found = {}
    for folder, _, names in os.walk(os.path.join(place, places.MODEL)):
        for file in names:
            path = os.path.join(folder, file)
            found[os.path.relpath(path, place)] = path
    if not any(path.endswith(".safetensors") for path in found):
        raise ThetaError(f"the command left no {places.MODEL}/*.safetensors")
    return found

"""Models and texts, and the table of what each makes of each: only what nobody has computed yet is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ...errors import ThetaError, UsageError
from ...git import Git
from ...manifest import Digest
from ...repository import Repository
from .. import places
from ..data import tokens
from ..data.tokens import Stream
from ..experts import checkpoints, experts
from ..models import ModelAt
from ..settings import Text
from .losses import log_probs
from .perplexity import Score, score
from .results import Cell, Results

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Table = Mapping[tuple[str, str], Score]  # by the labels of model and text
_BATCH = 32  # windows


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be evaluated; ``domain`` is the one it was trained on, empty for a seed."""

    label: str
    commit: str
    digest: str
    load: Callable[[], PreTrainedModel]
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """How models are run: tokens in a window, the device, and whether kept results are computed again."""

    block: int
    device: str | None = None
    force: bool = False
    meter: Callable[[int, int], None] = lambda done, total: None


def commit(git: Git, revision: str) -> str:
    """The commit that a revision names. Raises ``ThetaError`` if there is none."""
    found = git.oid(f"{revision}^{{commit}}")
    if not found:
        raise ThetaError(f"there is no revision {revision!r}: 'git btm status' names all experts")
    return found


def subject(repository: Repository, revision: str, label: str = "") -> Subject:
    """The model of a revision. Raises ``ThetaError`` if there is none."""
    name = commit(repository.git, revision)
    model = ModelAt(repository, name)
    latest = next(checkpoints(repository.git, name), None)
    return Subject(label or revision, name, model.digest, model.model, latest[1].domain if latest else "")


def mean(repository: Repository, revisions: Sequence[str], shares: Sequence[float] = ()) -> Subject:
    """The weighted mean of models, parameter by parameter and by name, made in memory: no commit."""
    names = [commit(repository.git, revision) for revision in revisions]
    models = [ModelAt(repository, name) for name in names]
    parts = list(shares) or [1 / len(models)] * len(models)
    if len(parts) != len(models):
        raise UsageError(f"{len(parts)} weights for {len(models)} models")
    identity = "\n".join(f"{part!r} {model.digest}" for part, model in zip(parts, models, strict=True))
    label = f"mean of {', '.join(revisions)}"
    return Subject(label, names[0], Digest.of(identity.encode()), partial(_mean, models, parts))


def _mean(models: Sequence[ModelAt], shares: Sequence[float]) -> PreTrainedModel:
    import torch

    found = models[0].model()
    own = dict(found.named_parameters())
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in own.items()}
    for model, share in zip(models, shares, strict=True):
        other = dict(model.model().named_parameters())
        if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in own.items()}:
            raise ThetaError(f"{model.revision} has other parameters than {models[0].revision}: no mean of them")
        for name, value in other.items():
            sums[name] += share * value.detach().double()
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(sums[name])
    return found


def text(repository: Repository, domain: str, split: str, settings: Text) -> Stream:
    """The tokens of a split: of the worktree, or if it is not there, of the expert's branch of that domain."""
    if os.path.lexists(repository.absolute(places.text(domain, split))):
        return tokens.load(repository, domain, split, settings)
    for expert in experts(repository.git):
        name = f"{expert.tip}:{places.text(domain, split)}"
        if (
            expert.checkpoint.domain == domain
            and not repository.git.run("cat-file", "-e", name, check=False).returncode
        ):
            return tokens.load(repository, domain, split, settings, expert.tip)
    return tokens.load(repository, domain, split, settings)  # says what is missing


def evaluate(
    repository: Repository, subjects: Sequence[Subject], texts: Mapping[str, Stream], running: Running
) -> dict[tuple[str, str], Score]:
    """The score of each model over each text; those that were missing are kept, model by model, as they are found."""
    results = Results(repository.git)
    cells = {
        (item.label, label): Cell(item.digest, stream.digest, running.block)
        for item in subjects
        for label, stream in texts.items()
    }
    known = {} if running.force else results.get(set(cells.values()))
    for number, item in enumerate(subjects):
        running.meter(number, len(subjects))
        wanted = {cells[item.label, label]: stream for label, stream in texts.items()}
        missing = {cell: stream for cell, stream in wanted.items() if cell not in known}
        if missing:
            model = placed(item.load(), running.device)
            found = {
                cell: score(log_probs(model, stream.tokens, running.block, _BATCH)) for cell, stream in missing.items()
            }
            results.put(found)
            known |= found
    return {names: known[cell] for names, cell in cells.items()}


def placed(model: PreTrainedModel, device: str | None) -> PreTrainedModel:
    """The model on a device: that of this name, or a GPU if there is one. Raises ``UsageError`` for one that is not."""
    import torch

    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model.to(name)  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r}: {str(error).partition(chr(10))[0]}") from None
    return model

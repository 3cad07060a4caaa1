"""An ensemble over a text: its perplexity, and what each expert had to say in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...repository import Repository
from .. import places
from ..data.tokens import Stream
from ..evaluating.cells import Running, Subject, subject, text
from ..evaluating.perplexity import Score
from ..settings import load
from . import clustering
from .ensembles import Ensemble
from .gathering import gathered
from .posterior import BATCH, Losses, Mixed, evaluate, updating
from .ranks import Ranks
from .spelling import decoder

Tokens: TypeAlias = NDArray[np.integer[Any]]


def subjects(repository: Repository, ensemble: Ensemble) -> tuple[Subject, ...]:
    """The experts' models. Raises ``ThetaError`` for one that is no longer there."""
    return tuple(subject(repository, member.revision, member.name) for member in ensemble.experts)


def run(
    repository: Repository, ensemble: Ensemble, tokens: Tokens, running: Running, ranks: Ranks | None = None
) -> Mixed:
    """Evaluate an ensemble over a stream of tokens: the experts one after the other, or shared among processes."""
    kept = ensemble.kept
    place = places.private(repository.common, "losses")
    with gathered(subjects(repository, kept), tokens, running, place, ranks or Ranks()) as losses:
        if kept.type == "updating-prior":
            return _updating(losses, kept.posterior)
        if kept.type == "clustering":
            root = repository.worktree()
            by = clustering.weigher(root, kept, decoder(root, load(root).text.tokenizer))
            return evaluate(losses, clustering.priors(tokens, running.block, by), kept.posterior)
        return evaluate(losses, np.array(kept.weights), "static" if kept.type == "simple-average" else kept.posterior)


def _updating(losses: Losses, posterior: str) -> Mixed:
    total, shares = Score(0.0, 0), np.zeros(len(losses))
    for step in updating(losses, posterior, batch=BATCH):
        total += step.score
        shares += np.array(step.posterior) * step.score.tokens
    return Mixed(total, tuple((shares / total.tokens).tolist()))


@dataclass(frozen=True, slots=True)
class Row:
    """What an ensemble made of a domain: its score, and the mean weight of each expert, 0 of those that ``topk`` leaves
    out."""

    domain: str
    score: Score
    shares: dict[str, float]

    def fields(self) -> dict[str, Any]:
        """What JSON tells of it."""
        numbers = {"perplexity": self.score.perplexity, "loss": self.score.mean, "tokens": self.score.tokens}
        return {"domain": self.domain, **numbers, "shares": self.shares}


@dataclass(frozen=True, slots=True)
class Job:
    """Domains that an ensemble is evaluated on."""

    domains: tuple[str, ...]
    split: str = "test"
    device: str | None = None
    meter: Callable[[int, int], None] = lambda done, total: None


def texts(repository: Repository, job: Job) -> dict[str, Stream]:
    """The streams of a job's domains, or of all in ``btm.toml``. Raises ``ThetaError`` for one that is not there."""
    settings = load(repository.worktree())
    names = job.domains or settings.domains
    if not names:
        raise UsageError("on which text? --data DOMAIN says it")
    return {name: text(repository, name, job.split, settings.text) for name in names}


def over(repository: Repository, ensemble: Ensemble, job: Job, ranks: Ranks | None = None) -> list[Row]:
    """Evaluate an ensemble on the domains of a job. Raises ``ThetaError``."""
    running = Running(load(repository.worktree()).text.block, job.device, meter=job.meter)
    rows = []
    for name, stream in texts(repository, job).items():
        found = run(repository, ensemble, stream.tokens, running, ranks)
        shares = dict.fromkeys((member.name for member in ensemble.experts), 0.0)
        shares |= {member.name: share for member, share in zip(ensemble.kept.experts, found.shares, strict=True)}
        rows.append(Row(name, found.score, shares))
    return rows

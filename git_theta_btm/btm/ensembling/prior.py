"""The prior of a domain over experts: estimated on a little of its text, kept in ``priors/<domain>.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import UsageError
from ...repository import Repository
from .. import places
from ..evaluating.cells import Running, Subject, subject, text
from ..experts import experts as all_experts
from ..settings import load
from . import filing
from .estimators import estimate as estimated
from .estimators import tail
from .gathering import gathered, windows
from .posterior import ALPHA, BATCH, Step, updating
from .ranks import Ranks

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Estimation:
    """How a prior is estimated: on which text, on how many windows of it, and by what.

    ``samples`` are windows, spread over the text; for ``ema`` they are the last number of a batch of two, counted from
    0, as in BTM's code: 100 are 101 batches.
    """

    split: str = "valid"
    samples: int = 100
    estimator: str = "em"
    alpha: float = ALPHA
    device: str | None = None
    meter: Callable[[int, int], None] = lambda done, total: None

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"samples cannot be {self.samples}: it is at least 1")
        if not 0 < self.alpha <= 1:
            raise UsageError(f"alpha cannot be {self.alpha:g}: it is above 0, and at most 1")

    @property
    def windows(self) -> int:
        """Windows that are read."""
        return BATCH * (self.samples + 1) if self.estimator == "ema" else self.samples


@dataclass(frozen=True, slots=True)
class Prior:
    """A prior and what it came from. ``perplexities`` are those of each expert on the same windows; ``steps`` tell
    batch by batch how a prior that follows the text moved."""

    domain: str
    subjects: tuple[Subject, ...]
    weights: tuple[float, ...]
    options: Estimation
    text: str  # the digest of the tokens
    perplexities: tuple[float, ...] = ()
    steps: tuple[Step, ...] = field(default=(), repr=False)

    @property
    def shares(self) -> dict[str, float]:
        """The weights by the experts' names."""
        return {item.label: weight for item, weight in zip(self.subjects, self.weights, strict=True)}

    @property
    def best(self) -> str:
        """The expert with the largest weight."""
        return self.subjects[int(np.argmax(self.weights))].label

    def document(self) -> dict[str, Any]:
        """What the file holds."""
        rows = zip(self.subjects, self.weights, strict=True)
        return {
            "version": _VERSION,
            "domain": self.domain,
            "experts": [{"name": item.label, "commit": item.commit, "weight": weight} for item, weight in rows],
            "prior": self.shares,
            "estimator": self.options.estimator,
            "alpha": self.options.alpha,
            "samples": self.options.samples,
            "split": self.options.split,
            "digests": {"text": self.text, **{item.label: item.digest for item in self.subjects}},
        }

    def log(self) -> str:
        """The lines of BTM's log: the last one's ``exp_avg_posterior`` is what ``ema`` estimates."""
        return "".join(json.dumps(step.fields()) + "\n" for step in self.steps)


def estimate(
    repository: Repository, experts: Sequence[str], domain: str, options: Estimation | None = None
) -> dict[str, float]:
    """The weight of each expert, a branch or another revision, in a domain. Raises ``ThetaError``."""
    return measure(repository, experts, domain, options or Estimation()).shares


def measure(repository: Repository, experts: Sequence[str], domain: str, options: Estimation) -> Prior:
    """The same with all that belongs to it. Without names it is over all experts."""
    names = list(dict.fromkeys(experts)) or [expert.branch for expert in all_experts(repository.git)]
    if not names:
        raise UsageError("there is no expert yet: 'git btm branch DOMAIN' makes one")
    settings = load(repository.worktree())
    subjects = tuple(subject(repository, name) for name in names)
    stream = text(repository, domain, options.split, settings.text)
    spread = options.estimator != "ema"
    tokens = windows(stream.tokens, settings.text.block, options.windows, spread=spread)
    running = Running(settings.text.block, options.device, meter=options.meter)
    with gathered(subjects, tokens, running, places.private(repository.common, "losses"), Ranks()) as found:
        steps = tuple(updating(found, "last-token", options.alpha))
        tail(steps)
        weights = estimated(found, options.estimator, options.alpha)
        losses = np.nanmean(np.asarray(found, np.float64), axis=(1, 2))
    perplexities = tuple(np.exp(-losses).tolist())
    return Prior(domain, subjects, weights, options, stream.digest, perplexities, steps)


def keep(repository: Repository, prior: Prior, *, commit: bool = True) -> str:
    """Write ``priors/<domain>.json`` and BTM's log of it; the commit, or nothing if none was wanted or needed."""
    path = filing.name(prior.domain, places.PRIORS)
    log = places.private(repository.common, places.PRIORS, f"{prior.domain}.jsonl")
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        file.write(prior.log())
    return filing.write(repository, path, prior.document(), f"Estimate the prior of {prior.domain}", commit=commit)

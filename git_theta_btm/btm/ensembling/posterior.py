"""What an ensemble makes of a text: the experts' probabilities of each token, weighted by what came before it.

Log-probabilities of the tokens that follow are ``[experts, windows, tokens]``, NaN where a window has nothing to
predict, in float64 from here on. -inf is a probability like any other.

- ``static``: an expert weighs what the prior gives it, throughout.
- ``history``: the posterior by Bayes' rule over the window so far, as the paper, arXiv:2208.03306, has it.
- ``last-token``: prior times the probability of the last token alone, and all the same at a window's first prediction:
  what BTM's published code does (kernelmachine/demix, sequence_scorer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..evaluating.perplexity import Score, score

Array: TypeAlias = NDArray[np.float64]
Losses: TypeAlias = NDArray[np.floating[Any]]

POSTERIORS = ("history", "last-token", "static")
ALPHA = 0.3  # BTM's
BATCH = 2  # windows: BTM's, on each GPU
_WINDOWS = 256  # at a time, so that float64 is needed of few


def uniform(count: int) -> Array:
    """The same weight for each."""
    return np.full(count, 1 / count)


def weights(losses: Losses, prior: Losses, posterior: str = "history") -> Array:
    """The logarithms of the experts' weights at each prediction; the weights of one sum to 1.

    ``prior`` is ``[experts]``, or ``[experts, windows, tokens]`` if it depends on the text before. Where all experts
    hold what came before to be impossible, it is the prior. Raises ``UsageError`` for an unknown ``posterior``.
    """
    first = _logarithm(np.asarray(prior, np.float64).reshape(*np.shape(prior), *[1] * (3 - np.ndim(prior))))
    first = np.broadcast_to(first, losses.shape)
    if posterior == "static":
        return np.array(first)
    seen = np.nan_to_num(np.asarray(losses, np.float64), nan=0.0, neginf=-np.inf)
    before = np.zeros_like(seen)
    if posterior == "history":
        before[..., 1:] = np.cumsum(seen[..., :-1], axis=-1)
    elif posterior == "last-token":
        before[..., 1:] = seen[..., :-1]
    else:
        raise UsageError(f"a posterior cannot be {posterior!r}: it is {', '.join(POSTERIORS)}")
    found = _normalized(first + before, first)
    if posterior == "last-token":
        found[..., 0] = -np.log(len(losses))
    return found


def mixture(losses: Losses, log_weights: Array) -> Array:
    """The ensemble's log-probabilities, ``[windows, tokens]``."""
    return log_sum(log_weights + np.asarray(losses, np.float64))


def last(losses: Losses, log_weights: Array) -> Array:
    """The experts' weights at each window's last prediction: ``[experts, windows]``, without windows that have none."""
    counts = np.count_nonzero(~np.isnan(losses[0]), axis=-1)
    rows = np.flatnonzero(counts)
    found: Array = np.exp(log_weights[:, rows, counts[rows] - 1])
    return found


def log_sum(values: Array) -> Array:
    """The logarithm of the sum over the first axis of ``exp(values)``; NaN stays NaN, and only -inf gives -inf."""
    top = values.max(axis=0)
    top = np.where(np.isfinite(top), top, 0.0)
    return top + _logarithm(np.exp(values - top).sum(axis=0))


def _logarithm(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        found: Array = np.log(values)
    return found


def _normalized(found: Array, otherwise: Array) -> Array:
    total = log_sum(found)
    impossible = np.isneginf(total)
    return np.where(impossible, otherwise, found - np.where(impossible, 0.0, total))


# -- whole texts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mixed:
    """An ensemble's score over a text, and the weight that each expert had on average, each prediction counting the
    same."""

    score: Score
    shares: tuple[float, ...]


def evaluate(losses: Losses, prior: Losses, posterior: str = "history") -> Mixed:
    """The ensemble over a text with a prior that stays as it is."""
    total, shares = Score(0.0, 0), np.zeros(len(losses))
    for rows in _slices(losses.shape[1], _WINDOWS):
        part = np.asarray(losses[:, rows], np.float64)
        if np.isnan(part).all():
            continue
        by = weights(part, prior if np.ndim(prior) == 1 else prior[:, rows], posterior)
        found = score(mixture(part, by))
        total += found
        shares += np.exp(by[:, ~np.isnan(part[0])]).sum(axis=1)
    if not total.tokens:
        return Mixed(score(losses[0]), ())  # raises
    return Mixed(total, tuple((shares / total.tokens).tolist()))


@dataclass(frozen=True, slots=True)
class Step:
    """One batch of a text with a prior that follows it: the ensemble's score, the experts' mean weights at the ends of
    its windows, and the moving average of those up to here."""

    score: Score
    posterior: tuple[float, ...]
    average: tuple[float, ...]

    def fields(self) -> dict[str, object]:
        """The line of BTM's log."""
        return {
            "ppl": self.score.perplexity,
            "posterior": list(self.posterior),
            "exp_avg_posterior": list(self.average),
        }


def updating(losses: Losses, posterior: str = "last-token", alpha: float = ALPHA, batch: int = BATCH) -> Iterator[Step]:
    """Batch by batch, the prior of each the moving average of the posteriors before it; uniform for the first.

    The average is that of pandas' ``ewm(alpha, adjust=False)``: the first posterior, then ``alpha`` of each new one.
    """
    average: Array | None = None
    for rows in _slices(losses.shape[1], batch):
        part = np.asarray(losses[:, rows], np.float64)
        if np.isnan(part).all():
            continue
        by = weights(part, uniform(len(losses)) if average is None else average, posterior)
        now = last(part, by).mean(axis=1)
        average = now if average is None else alpha * now + (1 - alpha) * average
        yield Step(score(mixture(part, by)), tuple(now.tolist()), tuple(average.tolist()))


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))

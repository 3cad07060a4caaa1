"""How much each expert has to do with a domain, by the log-probabilities they give to a little of its text.

- ``em``: the weights under which the text, as windows that are each of one expert, is most likely. The likelihood is
  concave in them, so there is one answer, whatever the order of the windows.
- ``ema``: what BTM's published code does: a moving average of the posteriors at the ends of batches, in order.
- ``paper``: the sum of lambda^i times the posterior at the end of window i, as DEMix (arXiv:2108.05036) writes it.

A moving average with alpha .3 remembers (2 - alpha) / alpha = 5.7 batches, however many there are; hence ``em``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from .posterior import ALPHA, Array, Losses, Step, last, uniform, updating, weights

ESTIMATORS = ("em", "ema", "paper")
_GAP = 1e-10  # nats for each row that the likelihood may stay below its maximum
_ROUNDS = 100_000
_FLOOR = 1e-30  # a weight of 0 could never grow again


def estimate(losses: Losses, estimator: str = "em", alpha: float = ALPHA) -> tuple[float, ...]:
    """The prior over the experts by one of the estimators. Raises ``UsageError`` for another."""
    if estimator == "em":
        found = em(np.nansum(np.asarray(losses, np.float64), axis=-1).T)
    elif estimator == "ema":
        found = np.array(tail(list(updating(losses, "last-token", alpha))).average)
    elif estimator == "paper":
        by = weights(losses, uniform(len(losses)))
        ends = last(losses, by)
        decay = alpha ** np.arange(1, ends.shape[1] + 1)
        found = ends @ decay / decay.sum()
    else:
        raise UsageError(f"an estimator cannot be {estimator!r}: it is {', '.join(ESTIMATORS)}")
    return tuple((found / found.sum()).tolist())


def tail(steps: Sequence[Step]) -> Step:
    """The last batch of a text. Raises ``UsageError`` if there was none."""
    if not steps:
        raise UsageError("a prior needs a text of at least two tokens")
    return steps[-1]


def em(log_likelihoods: NDArray[np.floating[Any]]) -> Array:
    """The mixture weights ``w`` that maximise the sum of ``log(sum_j w_j exp(l_ij))`` over rows ``[n, experts]``.

    Each round multiplies a weight by the gradient, to a power that grows while that helps (adaptive over-relaxation,
    Salakhutdinov and Roweis 2003). A concave function stays below its maximum by no more than the largest gradient
    less 1, which is when it ends: at most 1e-10 nats a row. Rows that no expert holds possible say nothing.
    """
    rows = np.asarray(log_likelihoods, np.float64)
    rows = rows[np.isfinite(rows.max(axis=1))] if len(rows) else rows
    likelihoods = np.exp(rows - rows.max(axis=1, keepdims=True, initial=-np.inf))
    found, power = uniform(rows.shape[1]), 1.0
    if not len(rows):
        return found
    reached = _value(likelihoods, found)
    for _ in range(_ROUNDS):
        gradient = (likelihoods / (likelihoods @ found)[:, None]).mean(axis=0)
        if gradient.max() - 1 <= _GAP:
            break
        step = _stepped(found, gradient, power)
        value = _value(likelihoods, step)
        if value < reached:
            power, step = 1.0, _stepped(found, gradient, 1.0)  # a step of EM never loses
            value = _value(likelihoods, step)
        else:
            power *= 1.5
        found, reached = step, value
    return np.where(found > 1e6 * _FLOOR, found, 0.0)


def _stepped(found: Array, gradient: Array, power: float) -> Array:
    with np.errstate(divide="ignore"):
        step = np.log(found) + power * np.log(gradient)
    grown: Array = np.maximum(np.exp(step - step.max()), _FLOOR)
    grown /= grown.sum()
    return grown


def _value(likelihoods: Array, found: Array) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(likelihoods @ found).mean())

"""Signs: where task vectors disagree about a direction, one is elected, and only what goes that way is merged.

Yadav et al., "TIES-Merging", arXiv:2306.01708, sections 4.2 and 4.3. Pure functions of array API arrays; NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from types import ModuleType
from typing import Any, TypeAlias

from .masks import constant, zeroed

Array: TypeAlias = Any  # float64, of any array library


def scaled(deltas: Sequence[Array], weights: Sequence[float]) -> list[Array]:
    """The weighted task vectors, without those of weight 0."""
    pairs = zip(deltas, weights, strict=True)
    return [delta if weight == 1 else delta * weight for delta, weight in pairs if weight]


def votes(xp: ModuleType, terms: Sequence[Array]) -> list[Array]:
    """The terms' signs: 1, 0 or -1."""
    return [xp.where(term > 0, 1.0, xp.where(term < 0, -1.0, term)) for term in terms]


def elected(terms: Sequence[Array]) -> Array:
    """Where the elected sign, that of the sum, is minus: not where nothing or an exact tie is summed up."""
    return reduce(add, terms) < 0


def opposed(term: Array, negative: Array) -> Array:
    """Where a term has not the elected sign. What is 0 has no sign; what is not a number has every one."""
    return (negative & (term >= 0)) | (~negative & (term <= 0))


def agreeing(xp: ModuleType, terms: Sequence[Array], negative: Array, weights: Sequence[float] | None = None) -> Array:
    """The sum of the terms that have the elected sign, divided by the sum of their absolute weights if given."""
    kept = share = None
    for place, term in enumerate(terms):
        dropped = opposed(term, negative)
        part = zeroed(xp, term, dropped)
        kept = part if kept is None else kept + part
        if weights is not None:
            part = constant(xp, abs(weights[place]), dropped, term)
            share = part if share is None else share + part
    return kept if share is None else kept / (share + constant(xp, 1.0, share > 0, term))


def merged(
    xp: ModuleType, deltas: Sequence[Array], weights: Sequence[float], *, normalize: bool, frequency: bool = False
) -> Array:
    """Sign election and disjoint merge: each element goes where the weighted sum (or most of the task vectors) goes.

    ``normalize`` makes it the mean of those that agree, else it is their sum.
    """
    terms = scaled(deltas, weights)
    if not terms:
        return deltas[0] * 0.0
    negative = elected(votes(xp, terms) if frequency else terms)
    return agreeing(xp, terms, negative, [weight for weight in weights if weight] if normalize else None)

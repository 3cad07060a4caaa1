"""Masks: which elements of a task vector are kept, and what those that are kept are multiplied by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum, inf, prod
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from ..errors import ThetaError
from . import chance
from .sums import total

Array: TypeAlias = Any  # float64, of any array library


def drawn(xp: ModuleType, like: Array, key: bytes, start: int) -> Array:
    """A random number in [0, 1) for each element, in the array's shape and on its device."""
    numbers = chance.uniform(key, start, prod(like.shape)).reshape(tuple(like.shape))
    return xp.asarray(numbers, device=like.device)


def trimmed(xp: ModuleType, array: Array, low: float, high: float = inf) -> Array:
    """The array with 0 in place of what has a magnitude below ``low`` or above ``high``. NaN stays."""
    if not low and high == inf:
        return array
    magnitude = xp.abs(array)
    dropped = magnitude < low
    return zeroed(xp, array, dropped if high == inf else dropped | (magnitude > high))


def zeroed(xp: ModuleType, array: Array, dropped: Array) -> Array:
    """The array with 0 where ``dropped`` is true."""
    if xp is not np:
        return xp.where(dropped, 0.0, array)
    bits = dropped.astype(np.int64)  # NumPy's where branches: where that is hard to foresee it takes four times as long
    bits -= 1
    bits &= np.asarray(array, order="C").view(np.int64)
    return bits.view(np.float64)


def constant(xp: ModuleType, value: float, dropped: Array, like: Array) -> Array:
    """``value``, and 0 where ``dropped`` is true, as an array of the type of ``like``."""
    if xp is not np:
        zero, number = (xp.asarray(each, dtype=like.dtype, device=like.device) for each in (0.0, value))
        return xp.where(dropped, zero, number)  # of two Python numbers, it makes a torch tensor in float32
    return np.logical_not(dropped) * value


def ladder(xp: ModuleType, array: Array) -> Array:
    """The ranks by magnitude in each row of a matrix, from -1 for the least to 1 for the greatest, which NaN is.

    Equal magnitudes rank in the order of their places. A row of one element has the rank 0.
    """
    order = xp.argsort(xp.argsort(xp.abs(array), axis=-1, stable=True), axis=-1)
    last = max(0, array.shape[-1] - 1)
    ranks = xp.asarray(order, dtype=array.dtype)
    return (ranks * 2.0 - float(last)) / float(max(1, last))


def norm_ratios(tiles: Iterable[Sequence[tuple[Array, Array]]]) -> tuple[float, ...]:
    """For each task vector its L1 norm before, divided by that after masking: from tiles of (before, after) for each.

    1 where there is no such number: nothing is left, or an element is not finite.
    """
    norms = [[(_norm(before), _norm(after)) for before, after in tile] for tile in tiles]
    return tuple(_ratio(_added(b for b, _ in each), _added(a for _, a in each)) for each in zip(*norms, strict=True))


def divisor(weights: Sequence[float], *, normalize: bool) -> float:
    """What a weighted sum is divided by: the weights' sum, or 1. Raises ``ThetaError`` if they sum to 0."""
    whole = fsum(weights) if normalize else 1.0
    if not whole:
        raise ThetaError("weights that sum to 0 cannot be normalized")
    return whole


def _norm(array: Array) -> float:
    magnitudes = abs(array)
    return total(magnitudes.reshape((prod(magnitudes.shape),)))


def _added(parts: Iterable[float]) -> float:
    try:
        return fsum(parts)
    except OverflowError:
        return inf


def _ratio(before: float, after: float) -> float:
    return before / after if 0 < after < inf and before < inf else 1.0

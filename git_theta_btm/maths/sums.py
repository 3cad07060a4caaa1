"""Sums whose every bit is defined: IEEE additions in a fixed order, where a library's own sum depends on its build.

They work on NumPy arrays and on torch tensors alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import frexp
from typing import Any, TypeAlias

Array: TypeAlias = Any  # one dimension of float64, NumPy's or torch's


def total(array: Array) -> float:
    """The sum of a one-dimensional array, by adding its halves until one number is left; 0 if it is empty."""
    size, rest = array.shape[0], 0.0
    while size > 1:
        if size % 2:
            rest += float(array[size - 1])
        size //= 2
        array = array[:size] + array[size : 2 * size]
    return (float(array[0]) if size else 0.0) + rest


def dot(left: Array, right: Array) -> float:
    """The inner product of two one-dimensional arrays."""
    return total(left * right)


def weighted(arrays: Sequence[Array], weights: Sequence[float], divisor: float = 1.0) -> Array:
    """``sum(weight * array) / divisor`` in the order given. A weight of 0 leaves its array out, so that an infinity
    in it does no harm; a weight or divisor of 1 costs nothing and changes nothing. To divide by a power of two is to
    multiply by its inverse, which takes half as long and rounds the same number."""
    result: Array = None
    for array, weight in zip(arrays, weights, strict=True):
        if weight:
            term = array if weight == 1 else array * weight
            result = term if result is None else result + term
    if result is None:
        return arrays[0] * 0.0
    if divisor == 1:
        return result
    return result * (1 / divisor) if divisor > 1 and frexp(divisor)[0] == 0.5 else result / divisor

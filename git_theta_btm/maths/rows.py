"""Matrices row by row: sums along rows whose every bit is defined, and how far two rows are apart as distributions.

All work on NumPy arrays and torch tensors of two dimensions and at least one column alike.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log1p, sqrt
from types import ModuleType
from typing import Any, TypeAlias

from .geometry import steady

Array: TypeAlias = Any

_HALVINGS = 10  # of an exponent, so that it is below 0.7 where the power is a normal number
_TERMS = 16  # of the series of e**x: the next is below 2**-53 for such an x
_LARGEST = 700.0  # e**710 is no float64


def table(array: Array, xp: ModuleType, axis: int = -1) -> Array:
    """An array as a matrix whose rows lie along an axis; a scalar is a row of one."""
    if not array.ndim:
        return xp.reshape(array, (1, 1))
    moved = xp.moveaxis(array, axis, -1)
    return xp.reshape(moved, (-1, moved.shape[-1]))


def restored(matrix: Array, xp: ModuleType, shape: tuple[int, ...], axis: int = -1) -> Array:
    """A matrix that ``table`` made, or one of its shape, as an array of the original shape."""
    if not shape:
        return xp.reshape(matrix, ())
    axis %= len(shape)
    moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
    return xp.moveaxis(xp.reshape(matrix, moved), -1, axis)


def totals(matrix: Array) -> Array:
    """The sum of each row, by adding its halves, as ``sums.total`` does."""
    size, rest = matrix.shape[-1], 0.0
    while size > 1:
        if size % 2:
            rest = rest + matrix[:, size - 1]
        size //= 2
        matrix = matrix[:, :size] + matrix[:, size : 2 * size]
    return matrix[:, 0] + rest


def lengths(matrix: Array, xp: ModuleType) -> Array:
    """The length of each row, as a column. By Python's root: one in 80 of torch's on a processor is not the nearest."""
    return column([sqrt(square) for square in totals(matrix * matrix).tolist()], matrix, xp)


def column(values: list[float], like: Array, xp: ModuleType) -> Array:
    """Numbers as a column beside a matrix: one for each row."""
    return xp.reshape(xp.asarray(values, dtype=like.dtype, device=like.device), (-1, 1))


def each(function: Callable[[float], float], values: Array, xp: ModuleType) -> Array:
    """A function of Python's ``math`` for each number of a vector, rounded to 40 bits, as a column."""
    return column([steady(function(value)) for value in values.tolist()], values, xp)


def growth(exponent: Array, xp: ModuleType) -> Array:
    """``e**x - 1`` of each element, for x from -700 to 700: beyond, it stays.

    By the series, and ``(y + 1)**2 - 1 = y (y + 2)``: a library's own has other last bits on other processors.
    """
    small = xp.clip(exponent, -_LARGEST, _LARGEST) / 2.0**_HALVINGS
    series = 1 + small / _TERMS
    for term in range(_TERMS - 1, 1, -1):
        series = 1 + small * series / term
    result = small * series
    for _ in range(_HALVINGS):
        result = result * (result + 2)
    return result


def softmax(matrix: Array, xp: ModuleType) -> Array:
    """Each row as a distribution: ``e**x / sum(e**x)``, to 15 digits after the point."""
    powers = 1 + growth(matrix - xp.max(matrix, axis=-1, keepdims=True), xp)
    return powers / xp.reshape(totals(powers), (-1, 1))


def divergence(matrix: Array, reference: Array, xp: ModuleType) -> Array:
    """The Kullback-Leibler divergence of the softmax of each row from that of the reference, as a column.

    With p the reference's distribution, and d the difference less its mean under p, it is
    ``sum(p e**d d) / z - log(z)``, ``z = sum(p e**d)``: nothing large cancels, however close the rows are.
    """
    p = softmax(reference, xp)
    moved = matrix - reference
    moved = moved - xp.reshape(totals(p * moved), (-1, 1))
    grown = growth(moved, xp)
    excess = totals(p * grown)
    mean = xp.reshape(totals(p * (1 + grown) * moved) / (1 + excess), (-1, 1))
    found = mean - each(_log1p, excess, xp)
    return xp.where(found < 0, xp.zeros_like(found), found)


def _log1p(number: float) -> float:
    return log1p(max(number, 0.0)) if number == number else number  # at least 0, by Jensen's inequality

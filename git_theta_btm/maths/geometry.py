"""Tensors as vectors: their lengths, the angles between them, and the weighted sums that lie on an arc.

Every point that spherical methods visit is a weighted sum of the vectors they start from, so one pass over the tensors
for the inner products is enough, however many steps follow.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from math import acos, frexp, fsum, isfinite, ldexp, nan, sin, sqrt
from typing import Any, TypeAlias

from ..errors import ThetaError
from .sums import dot

Array: TypeAlias = Any
Matrix: TypeAlias = list[list[float]]  # symmetric

_BITS = 40  # significant ones that are kept of what a C library computed: they differ in the last of 53
_HUGE = 2.0**1023  # from here on, rounding up might overflow
_FLAT = 1e-12  # squared sine below which an arc and its chord are the same in float64


def steady(number: float) -> float:
    """A number rounded to 40 significant bits, so that the last bit of a C library's function does not show."""
    if not abs(number) < _HUGE:
        return number
    mantissa, exponent = frexp(number)
    return ldexp(round(mantissa * 2.0**_BITS), exponent - _BITS)


def combined(parts: Iterable[float]) -> float:
    """The sum of numbers, rounded once; NaN if they overflow or include infinities of both signs."""
    try:
        return fsum(parts)
    except (OverflowError, ValueError):
        return nan


def ends(tips: Sequence[Array], base: Array | None) -> tuple[Array, Array]:
    """Where a way starts and where it leads: two tips, or the base and an only one.

    Raises ``ThetaError`` for one tip without a base.
    """
    if len(tips) == 2:
        return tips[0], tips[1]
    if base is None:
        raise ThetaError("there is nothing to go from to one model: give two, or a base")
    return base, tips[0]


def gram(tiles: Iterable[Sequence[Array]], count: int) -> Matrix:
    """The inner products of ``count`` vectors, which come tile by tile, by one pass."""
    places = [(row, column) for row in range(count) for column in range(row + 1)]
    parts = {place: array("d") for place in places}
    for tile in tiles:
        for row, column in places:
            parts[row, column].append(dot(tile[row], tile[column]))
    sums = {place: combined(values) for place, values in parts.items()}
    return [[sums[max(row, column), min(row, column)] for column in range(count)] for row in range(count)]


def measurable(products: Matrix) -> bool:
    """Whether all inner products are finite: a vector with an infinity or a NaN in it has no direction."""
    return all(isfinite(product) for row in products for product in row)


def cosines(products: Matrix) -> tuple[list[float], Matrix]:
    """Lengths, and the cosines of the angles, of vectors with these inner products; a zero vector is at right angles
    to all, itself too."""
    lengths = [sqrt(products[place][place]) for place in range(len(products))]
    found = [
        [_cosine(product, left * right) for product, right in zip(row, lengths, strict=True)]
        for row, left in zip(products, lengths, strict=True)
    ]
    for place, length in enumerate(lengths):
        found[place][place] = 1.0 if length else 0.0
    return lengths, found


def _cosine(product: float, lengths: float) -> float:
    return min(1.0, max(-1.0, product / lengths)) if lengths else 0.0


def image(matrix: Matrix, weights: Sequence[float]) -> list[float]:
    """The inner product of each vector with a weighted sum of all of them."""
    return [fsum(entry * weight for entry, weight in zip(row, weights, strict=True)) for row in matrix]


def length(matrix: Matrix, weights: Sequence[float]) -> float:
    """How long the weighted sum of vectors is."""
    squared = fsum(weight * entry for weight, entry in zip(weights, image(matrix, weights), strict=True))
    return sqrt(max(0.0, squared))


def arc(products: Matrix, t: float, limit: float = 1.0) -> tuple[float, float]:
    """The weights of two vectors in the point at ``t`` of the way along the arc between them.

    It is a point of their chord where there is no arc to speak of: where one of them is zero or not finite, and where
    they are parallel, or opposite, to within a cosine of ``limit``.
    """
    chord = 1 - t, t
    if not measurable(products) or not products[0][0] or not products[1][1]:
        return chord
    cosine = cosines(products)[1][0][1]
    if abs(cosine) > limit or (1 - cosine) * (1 + cosine) <= _FLAT:
        return chord
    angle = acos(cosine)
    whole = sin(angle)
    return steady(sin((1 - t) * angle) / whole), steady(sin(t * angle) / whole)

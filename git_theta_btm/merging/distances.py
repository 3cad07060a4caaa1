"""Distances: how far apart two versions of a parameter are. For people, not for recipes."""

from __future__ import annotations

from math import fsum, sqrt

import numpy as np

from ..filters.encode import width_of
from ..floats import REAL, TILE, is_float, widen
from ..maths.sums import dot
from ..planes import TYPES
from ..source import Source
from ..tensor import Tensor


def kind_of(tensor: Tensor) -> str:
    """The type of the real numbers that a tensor is made of."""
    return REAL.get(tensor.dtype.name, tensor.dtype.name)


def comparable(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have a distance."""
    return one == other and is_float(kind_of(one))


def distance(one: Source, other: Source, tensor: Tensor) -> float:
    """The norm of the difference of two tensors of this type over that of the first; just the norm of the difference if
    the first is nothing but zeros, and NaN if there is a NaN."""
    kind, width = kind_of(tensor), width_of(tensor)
    differences, squares = [], []
    for start in range(0, one.size, TILE * width):
        size = min(TILE * width, one.size - start)
        left, right = (widen(np.frombuffer(side.read(start, size), TYPES[width]), kind) for side in (one, other))
        with np.errstate(all="ignore"):
            differences.append(dot(left - right, left - right))
            squares.append(dot(left, left))
    return _sum(differences) / (_sum(squares) or 1.0)


def _sum(squares: list[float]) -> float:
    try:
        return sqrt(fsum(squares))
    except (OverflowError, ValueError):  # infinities
        return float("nan")

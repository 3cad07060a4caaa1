"""Singular values: what strategies do with the spectrum of a matrix.

Unlike everything else here, the last bits depend on the matrix library, so strategies that use it say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from types import ModuleType
from typing import Any, TypeAlias

from ..errors import ThetaError

Array: TypeAlias = Any  # two dimensions of float64, NumPy's or torch's

_EPSILON = 2.0**-52


def finite(xp: ModuleType, matrix: Array) -> bool:
    """Whether a matrix has a spectrum: libraries fail on NaN and infinity in ways of their own."""
    return bool(xp.all(xp.isfinite(matrix)))


def svd(xp: ModuleType, matrix: Array) -> tuple[Array, Array, Array]:
    """The singular vectors and values that the matrix has: ``(left * values) @ right``, largest value first.

    Where a value is zero, to within rounding, its vectors are whatever the library found first: they are left out.
    """
    left, values, right = xp.linalg.svd(matrix, full_matrices=False)
    limit = float(values[0]) * max(matrix.shape) * _EPSILON if values.shape[0] else 0.0
    rank = int(xp.count_nonzero(values > limit))
    return left[:, :rank], values[:rank], right[:rank, :]


def shares(weights: Sequence[float]) -> float:
    """What weights are shares of: their sum. Raises ``ThetaError`` if that is nothing."""
    whole = fsum(weights)
    if not whole:
        raise ThetaError("weights that sum to 0 are no shares of a sum of task vectors")
    return whole


def orthogonal(xp: ModuleType, matrix: Array) -> Array:
    """The matrix with orthonormal columns (or rows, if these are fewer) that is nearest to this one (Procrustes)."""
    left, _, right = svd(xp, matrix)
    return left @ right

"""Quantiles by selection: exact order statistics, so neither sampling nor the order of elements has a say."""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Array: TypeAlias = Any


def quantiles(array: Array, shares: tuple[float, ...]) -> list[float]:
    """The values below which these shares of a NumPy array or torch tensor lie, linear between neighbours.

    This is definition 7 of Hyndman and Fan, "Sample quantiles in statistical packages" (1996), the usual one.
    """
    values = np.asarray(array.cpu() if hasattr(array, "cpu") else array).reshape(-1)
    last = values.size - 1
    places = [share * last for share in shares]
    needed = sorted({rank for place in places for rank in (floor(place), min(floor(place) + 1, last))})
    ordered = np.partition(values, needed)
    return [_between(ordered, place, last) for place in places]


def _between(ordered: npt.NDArray[np.float64], place: float, last: int) -> float:
    below = floor(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, last)])
    return low if low == high or place == below else low + (high - low) * (place - below)

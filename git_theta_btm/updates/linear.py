"""Linear: the tensor is a weighted sum of others, as averaging experts makes it.

The sum is taken in float64 in the order of the bases, divided, and rounded once, so it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CorruptObject
from ..floats import TILE, narrow, widen
from ..maths.sums import weighted
from ..planes import TYPES, Values
from ..source import Source, view
from . import Span


def predict(span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> Values:
    """``sum(weight * base) / divisor``. Parameters: ``dtype``, and as hexadecimal floats ``weights``, one for each
    base, and ``divisor``, without which there is no division."""
    weights = [float.fromhex(weight) for weight in parameters["weights"]]
    divisor = float.fromhex(parameters.get("divisor", "0x1p+0"))
    if len(weights) != len(bases) or not weights:
        raise CorruptObject(f"{len(weights)} weights for {len(bases)} tensors")
    dtype, width = parameters["dtype"], TYPES[span.width]
    patterns = [np.frombuffer(view(base, span.offset, span.size), width) for base in bases]
    result = np.empty(span.count, width)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for at in range(0, span.count, TILE):
            tiles = [widen(values[at : at + TILE], dtype) for values in patterns]
            result[at : at + TILE] = narrow(weighted(tiles, weights, divisor), dtype)
    return result

"""Linear: the tensor is a weighted sum of others, as averaging experts makes it.

The sum is taken in float64 in the order of the bases and rounded once, so it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CorruptObject
from ..floats import narrow, widen
from ..planes import TYPES, Values
from ..source import Source
from . import Span


def predict(span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> Values:
    """``sum(weight * base)``. Parameters: ``dtype``, and ``weights`` as hexadecimal floats, one for each base."""
    weights = [float.fromhex(weight) for weight in parameters["weights"]]
    if len(weights) != len(bases) or not weights:
        raise CorruptObject(f"{len(weights)} weights for {len(bases)} tensors")
    dtype = parameters["dtype"]
    total = np.zeros(span.count, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for weight, base in zip(weights, bases, strict=True):
            total += weight * widen(np.frombuffer(base.read(span.offset, span.size), TYPES[span.width]), dtype)
    return narrow(total, dtype)

"""IA3: the tensor is another one, its rows or columns scaled by a vector (arXiv:2205.05638)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CorruptObject
from ..floats import narrow, widen
from ..planes import TYPES, Values
from ..source import Source, view
from . import Span

_MOST_BYTES = 64 << 20  # of the vector: it is read whole for each chunk of the tensor


def predict(span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> Values:
    """``base * vector``.

    Parameters: ``dtype`` of the tensor, ``vector`` (the vector's dtype), ``columns`` (the tensor's last dimension), and
    ``axis``: 0 if the vector has one element for each row, 1 if one for each column.
    """
    base, vector = bases
    dtype, columns, axis = parameters["dtype"], parameters["columns"], parameters["axis"]
    if type(columns) is not int or columns < 1 or axis not in (0, 1) or vector.size > _MOST_BYTES:
        raise CorruptObject("an ia3 object with impossible parameters")
    width = 8 if parameters["vector"] == "F64" else 4 if parameters["vector"] == "F32" else 2
    scales = widen(np.frombuffer(view(vector, 0, vector.size), TYPES[width]), parameters["vector"])
    positions = np.arange(span.offset // span.width, span.offset // span.width + span.count)
    index = positions // columns if axis == 0 else positions % columns
    if len(index) and index[-1 if axis == 0 else 0] >= len(scales) or (axis == 1 and len(scales) != columns):
        raise CorruptObject("an ia3 object whose vector is too short")
    numbers = widen(np.frombuffer(view(base, span.offset, span.size), TYPES[span.width]), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return narrow(numbers * scales[index], dtype)

"""Low rank: the tensor is another one plus a product of two thin matrices, as a LoRA adapter has it (arXiv:2106.09685).

The product is summed over the rank in order, by elementwise float64 operations: a matrix library would add in an
order of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CorruptObject
from ..floats import Floats, narrow, widen
from ..planes import TYPES, Values
from ..source import Source, view
from . import Span

_MOST_BYTES = 64 << 20  # of a factor: both are read whole for each chunk of the tensor
_MOST_COLUMNS = 4 << 20  # whole rows of the product are computed
_MOST_RANK = 1024  # each step of which takes as long as reading the tensor
_WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}


def predict(span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> Values:
    """``base + scale * (left @ right)`` for ``left`` of shape (rows, rank) and ``right`` of shape (rank, columns).

    Parameters: ``dtype`` of the tensor, ``factors`` (that of left and right), ``columns``, ``rank``, ``scale`` as a
    hexadecimal float, and ``transposed``: whether the factors are those of the transposed product, so that what is
    stored is ``right`` transposed first and ``left`` transposed second.
    """
    base, first, second = bases
    dtype, columns, rank = parameters["dtype"], parameters["columns"], parameters["rank"]
    if type(columns) is not int or type(rank) is not int or max(first.size, second.size) > _MOST_BYTES:
        raise CorruptObject("a low-rank object with impossible parameters")
    if not 0 < columns <= _MOST_COLUMNS or not 0 < rank <= _MOST_RANK:
        raise CorruptObject(f"a low-rank object with {columns} columns and rank {rank}"[:100])
    left, right = (_matrix(factor, parameters["factors"]) for factor in (first, second))
    if parameters["transposed"]:
        left, right = right.reshape(rank, -1).T, left.reshape(columns, rank).T
    else:
        left, right = left.reshape(-1, rank), right.reshape(rank, columns)
    start = span.offset // span.width
    top, bottom = start // columns, -(-(start + span.count) // columns)
    if bottom > len(left):
        raise CorruptObject("a low-rank object whose factors are too short")
    numbers = widen(np.frombuffer(view(base, span.offset, span.size), TYPES[span.width]), dtype)
    product = _product(left[top:bottom], right).ravel()[start - top * columns :][: span.count]
    with np.errstate(over="ignore", invalid="ignore"):
        return narrow(numbers + float.fromhex(parameters["scale"]) * product, dtype)


def _matrix(source: Source, dtype: str) -> Floats:
    return widen(np.frombuffer(view(source, 0, source.size), TYPES[_WIDTH[dtype]]), dtype)


def _product(left: Floats, right: Floats) -> Floats:
    total = np.zeros((len(left), right.shape[1]), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for index in range(right.shape[0]):
            total += left[:, index : index + 1] * right[index]
    return total

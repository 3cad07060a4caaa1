"""The header of a ``.npy`` file: element type, order and shape, then the elements.

Specification: NEP 1 and ``numpy.lib.format``, versions 1 to 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import FormatError
from ..source import Source
from ..tensor import DTYPES, Tensor

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 16  # bytes; NumPy itself refuses to read a header of over 10,000 characters

# Possessive, so that a hostile header takes linear time. Python 2 wrote an L behind long integers.
_DIM = r"[0-9]{1,19}+L?\s*+"
_HEADER = re.compile(
    r"\{\s*+'descr'\s*+:\s*+('[^'\\]*+'|\[.*\])\s*+,\s*+'fortran_order'\s*+:\s*+(True|False)\s*+,"
    rf"\s*+'shape'\s*+:\s*+\(\s*+((?:{_DIM}(?:,\s*+{_DIM})*+,?\s*+)?)\)\s*+,?\s*+\}}\s*+",
    re.DOTALL,
)
_DTYPES = {
    "|b1": "BOOL", "|i1": "I8", "|u1": "U8", "<i2": "I16", "<u2": "U16", "<i4": "I32", "<u4": "U32", "<i8": "I64",
    "<u8": "U64", "<f2": "F16", "<f4": "F32", "<f8": "F64", "<c8": "C64", "<c16": "C128",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Array:
    """An array and the offset of its first element; ``tensor`` is ``None`` if its elements have no counterpart here."""

    tensor: Tensor | None
    offset: int


def read(source: Source, start: int, end: int) -> Array:
    """The array whose ``.npy`` file is the bytes ``[start, end)`` of ``source``. Raises ``FormatError``."""
    offset, text = _text(source, start, end)
    match = _HEADER.fullmatch(text)
    if not match:
        raise FormatError(f"not a header of NumPy: {text[:100]!r}")
    name = _DTYPES.get(match[1][1:-1])
    if name is None:
        return Array(None, offset)
    tensor = _tensor(name, match[3], fortran=match[2] == "True")
    if offset + tensor.nbytes > end:
        raise FormatError(f"an array of {tensor.nbytes} bytes in {end - offset}")
    return Array(tensor, offset)


def _text(source: Source, start: int, end: int) -> tuple[int, str]:
    """Where the header ends, and its text."""
    head = source.read(start, min(12, end - start))
    if head[:6] != MAGIC or len(head) < 10 or head[6] not in (1, 2, 3) or head[7]:
        raise FormatError("not a file of NumPy")
    width = 2 if head[6] == 1 else 4
    size = int.from_bytes(head[8 : 8 + width], "little")
    begin = start + 8 + width
    if size > MAX_HEADER or begin + size > end:
        raise FormatError(f"a header of NumPy of {size} bytes")
    return begin + size, source.read(begin, size).decode("latin-1")


def _tensor(name: str, shape: str, *, fortran: bool) -> Tensor:
    dims = tuple(int(dim) for dim in re.findall("[0-9]+", shape))
    if not fortran:
        return Tensor(DTYPES[name], dims)
    if len(dims) > 64:
        raise FormatError("an array of more than 64 dimensions")
    strides, step = [], 1
    for dim in dims:
        strides.append(step)
        step *= dim
    return Tensor(DTYPES[name], dims, tuple(strides))

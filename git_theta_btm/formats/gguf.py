"""GGUF, versions 2 and 3: a header of key-values and tensor descriptions, then the tensors.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Values of the header are stepped over, not
read, but for ``general.alignment``. Files of the other byte order, and of version 1, are not taken for this format.
"""

from __future__ import annotations

from ..errors import FormatError
from ..source import Source
from ..tensor import DTYPES, Tensor
from . import Located

WINDOW = 1 << 18  # bytes of header read at a time: a vocabulary is 10^5 strings of a few bytes each
MAX_HEADER = 100_000_000  # bytes; the largest vocabularies make some 10^7
MAX_TENSORS = 1 << 16  # GGML keeps a layer's experts in one tensor, so the largest models have some 10^3
MAX_NAME = 65535  # bytes; the specification's limit for keys, and far above GGML_MAX_NAME
MAX_DIMS = 4  # GGML_MAX_DIMS
MAX_NESTING = 8  # arrays in arrays; no writer makes any

_ALIGNMENT = b"general.alignment"
_UINT32, _STRING, _ARRAY = 4, 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # value type -> bytes
_TYPES = {number: DTYPES[name] for number, name in (
    (0, "F32"), (1, "F16"), (2, "Q4_0"), (3, "Q4_1"), (6, "Q5_0"), (7, "Q5_1"), (8, "Q8_0"), (9, "Q8_1"),
    (10, "Q2_K"), (11, "Q3_K"), (12, "Q4_K"), (13, "Q5_K"), (14, "Q6_K"), (15, "Q8_K"), (16, "IQ2_XXS"),
    (17, "IQ2_XS"), (18, "IQ3_XXS"), (19, "IQ1_S"), (20, "IQ4_NL"), (21, "IQ3_S"), (22, "IQ2_S"), (23, "IQ4_XS"),
    (24, "I8"), (25, "I16"), (26, "I32"), (27, "I64"), (28, "F64"), (29, "IQ1_M"), (30, "BF16"), (34, "TQ1_0"),
    (35, "TQ2_0"), (39, "MXFP4"), (40, "NVFP4"), (41, "Q1_0"),
)}  # fmt: skip


def locate(source: Source) -> list[Located]:
    """All tensors of the header, in the header's order. Raises ``FormatError``."""
    cursor = _Cursor(source)
    magic, version = cursor.take(4), cursor.uint(4)
    if magic != b"GGUF" or version not in (2, 3):
        raise FormatError(f"not a little-endian GGUF file of version 2 or 3: {version:#x}")
    tensors, pairs = cursor.uint(8), cursor.uint(8)
    if tensors > MAX_TENSORS:
        raise FormatError(f"a GGUF file of {tensors} tensors")
    alignment = _alignment(cursor, pairs)
    infos = [_tensor(cursor, alignment) for _ in range(tensors)]
    start = -(-cursor.at // alignment) * alignment
    return [Located(name, tensor, start + offset) for name, tensor, offset in infos]


class _Cursor:
    """A position in the header that only moves forward; bytes beyond the file's end raise ``FormatError``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window, self._start = b"", 0
        self.at = 0

    def take(self, size: int) -> bytes:
        if self.at + size > self._start + len(self._window):
            self._refill(size)
        begin = self.at - self._start
        self.at += size
        return self._window[begin : begin + size]

    def _refill(self, size: int) -> None:
        if self.at > MAX_HEADER:
            raise FormatError(f"a GGUF header of more than {MAX_HEADER} bytes")
        ahead = min(WINDOW, self._source.size - self.at)
        self._window, self._start = self._source.read(self.at, max(size, ahead)), self.at

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def string(self) -> bytes:
        size = self.uint(8)
        if size > MAX_NAME:
            raise FormatError(f"a GGUF name of {size} bytes")
        return self.take(size)

    def skip(self, size: int) -> None:
        self.at += size

    def skip_strings(self, count: int) -> None:
        """Step over ``count`` strings, at 0.3 us each: a vocabulary and its merges are most of a header."""
        at, number = self.at, int.from_bytes
        for _ in range(count):  # ends with the file at the latest
            begin = at - self._start
            if begin + 8 > len(self._window):
                self.at, begin = at, 0
                self._refill(8)
            at += 8 + number(self._window[begin : begin + 8], "little")
        self.at = at


def _alignment(cursor: _Cursor, pairs: int) -> int:
    """Step over the key-values; the alignment of tensors in bytes that they tell."""
    alignment = None
    for _ in range(pairs):
        key, kind = cursor.string(), cursor.uint(4)
        if key != _ALIGNMENT:
            _skip(cursor, kind, MAX_NESTING)
            continue
        if alignment is not None or kind != _UINT32:
            raise FormatError("general.alignment is not one number of 32 bits")
        alignment = cursor.uint(4)
    if alignment is None:
        return 32
    if alignment.bit_count() != 1:
        raise FormatError(f"an alignment of {alignment} bytes")
    return alignment


def _skip(cursor: _Cursor, kind: int, nesting: int) -> None:
    if kind == _STRING:
        cursor.skip(cursor.uint(8))
    elif kind == _ARRAY:
        _skip_array(cursor, nesting)
    elif kind in _SIZES:
        cursor.skip(_SIZES[kind])
    else:
        raise FormatError(f"a GGUF value of type {kind}")


def _skip_array(cursor: _Cursor, nesting: int) -> None:
    if not nesting:
        raise FormatError("GGUF arrays nested too deep")
    kind, count = cursor.uint(4), cursor.uint(8)
    if kind in _SIZES:
        cursor.skip(count * _SIZES[kind])
    elif kind == _STRING:
        cursor.skip_strings(count)
    else:
        for _ in range(count):  # ends with the file at the latest: an array takes twelve bytes or more
            _skip(cursor, kind, nesting - 1)


def _tensor(cursor: _Cursor, alignment: int) -> tuple[str, Tensor, int]:
    try:
        name = cursor.string().decode()
    except UnicodeDecodeError:
        raise FormatError("a GGUF tensor whose name is not UTF-8") from None
    rank = cursor.uint(4)
    if rank > MAX_DIMS:
        raise FormatError(f"{name[:100]!r} has {rank} dimensions")
    dims = tuple(cursor.uint(8) for _ in range(rank))  # innermost first
    kind, offset = cursor.uint(4), cursor.uint(8)
    if kind not in _TYPES:
        raise FormatError(f"{name[:100]!r} has the unknown type {kind}")
    dtype = _TYPES[kind]
    if dtype.block > 1 and (not dims or dims[0] % dtype.block):
        raise FormatError(f"rows of {name[:100]!r} are not whole blocks of {dtype.name}")
    if offset % alignment:
        raise FormatError(f"{name[:100]!r} is not aligned to {alignment} bytes")
    return name, Tensor(dtype, dims[::-1]), offset

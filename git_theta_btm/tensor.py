"""What a tensor is apart from its bytes: an element type, a shape, and the order of its elements in memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import FormatError

MAX_BYTES = 1 << 62  # far above any file system's limit, far below an overflow of a signed 64-bit offset
MAX_DIMS = 64  # as NumPy and torch


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: ``size`` bytes hold ``block`` elements (1 but for packed and quantised types)."""

    name: str
    size: int
    block: int = 1


def _table(*rows: tuple[str, int, int]) -> dict[str, DType]:
    return {name: DType(name, size, block) for name, size, block in rows}


# Names are those of safetensors where it has one, of GGML (in upper case) for block-quantised types,
# and of torch for its quantised integers. Little-endian always.
DTYPES = _table(
    *((name, 1, 1) for name in ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")),
    *((name, 2, 1) for name in ("I16", "U16", "F16", "BF16")),
    *((name, 4, 1) for name in ("I32", "U32", "F32", "C32")),
    *((name, 8, 1) for name in ("I64", "U64", "F64", "C64")),
    ("C128", 16, 1),
    ("F4", 1, 2), ("F6_E2M3", 3, 4), ("F6_E3M2", 3, 4),
    ("QINT8", 1, 1), ("QUINT8", 1, 1), ("QINT32", 4, 1), ("QUINT4X2", 1, 2), ("QUINT2X4", 1, 4),
    ("BITS8", 1, 1), ("BITS16", 2, 1), ("BITS4X2", 1, 2), ("BITS2X4", 1, 4), ("BITS1X8", 1, 8),
    # GGML block types: bytes per block, elements per block (ggml's type traits).
    ("Q4_0", 18, 32), ("Q4_1", 20, 32), ("Q5_0", 22, 32), ("Q5_1", 24, 32), ("Q8_0", 34, 32), ("Q8_1", 36, 32),
    ("Q2_K", 84, 256), ("Q3_K", 110, 256), ("Q4_K", 144, 256), ("Q5_K", 176, 256), ("Q6_K", 210, 256),
    ("Q8_K", 292, 256), ("IQ2_XXS", 66, 256), ("IQ2_XS", 74, 256), ("IQ3_XXS", 98, 256), ("IQ1_S", 50, 256),
    ("IQ4_NL", 18, 32), ("IQ3_S", 110, 256), ("IQ2_S", 82, 256), ("IQ4_XS", 136, 256), ("IQ1_M", 56, 256),
    ("TQ1_0", 54, 256), ("TQ2_0", 66, 256), ("MXFP4", 17, 32),
    ("NVFP4", 36, 64), ("Q1_0", 18, 128),
)  # fmt: skip


def _possible(sizes: tuple[int, ...]) -> bool:
    """Few and small enough to multiply, and to name in a message (``str`` refuses integers of over 4300 digits)."""
    return len(sizes) <= MAX_DIMS and all(0 <= size <= MAX_BYTES for size in sizes)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Element type, shape and, unless row-major contiguous, strides in elements.

    ``nbytes`` is the length of the memory the tensor spans, gaps between its elements included.
    Raises ``FormatError`` for anything that no memory could hold.
    """

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not _possible(self.shape):
            raise FormatError(f"impossible sizes of {len(self.shape)} dimensions")
        if self.strides is not None:
            if len(self.strides) != len(self.shape) or not _possible(self.strides):
                raise FormatError(f"impossible strides of {len(self.shape)} dimensions")
            if self.strides_are_contiguous():
                object.__setattr__(self, "strides", None)  # one value has one spelling
            elif self.dtype.block > 1:
                raise FormatError(f"{self.dtype.name} cannot be strided")
        if self.dtype.block > 1 and self.numel % self.dtype.block:
            raise FormatError(f"{self.numel} elements of {self.dtype.name} are not whole blocks")
        if self.nbytes > MAX_BYTES:
            raise FormatError(f"a tensor of {self.nbytes} bytes"[:200])

    @property
    def numel(self) -> int:
        total = 1
        for dim in self.shape:
            total *= dim
        return total

    @property
    def nbytes(self) -> int:
        if self.strides is None or not self.numel:
            return self.numel // self.dtype.block * self.dtype.size
        span = 1 + sum((dim - 1) * step for dim, step in zip(self.shape, self.strides, strict=True))
        return span * self.dtype.size

    def strides_are_contiguous(self) -> bool:
        """Whether the strides say no more than the shape does (dimensions of size 1 have no say)."""
        if not self.numel:
            return True
        step = 1
        for dim, stride in zip(reversed(self.shape), reversed(self.strides or ()), strict=True):
            if dim != 1 and stride != step:
                return False
            step *= dim
        return True

    def __str__(self) -> str:
        """``F32[768,3072]``; with strides ``F32[768,3072:1,768]``; a scalar ``F32[]``."""
        body = ",".join(map(str, self.shape))
        if self.strides is not None:
            body += ":" + ",".join(map(str, self.strides))
        return f"{self.dtype.name}[{body}]"

    @classmethod
    def parse(cls, text: str) -> Tensor:
        """The inverse of ``str``. Raises ``FormatError``."""
        match = _SPELLING.fullmatch(text)
        if not match or match[1] not in DTYPES:
            raise FormatError(f"not a tensor type: {text[:100]!r}")
        strides = None if match[3] is None else _ints(match[3])
        return cls(DTYPES[match[1]], _ints(match[2]), strides)


# No leading zeros and at most 19 digits, so that a hostile number costs nothing to read.
_INT = r"(?:0|[1-9][0-9]{0,18})"
_SPELLING = re.compile(rf"([A-Z0-9_]+)\[((?:{_INT}(?:,{_INT})*)?)(?::({_INT}(?:,{_INT})*))?\]")


def _ints(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()

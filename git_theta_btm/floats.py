"""Bit patterns as numbers and back: what predictions and merges compute with.

Narrowing rounds to nearest, ties to even, and keeps infinities. Every NaN becomes the positive quiet one without a
payload: which of two payloads an operation hands on, and the sign of a NaN that it makes, differ between processors.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import FormatError
from .planes import Values

Floats: TypeAlias = npt.NDArray[np.floating]

_NATIVE: dict[str, np.dtype[np.floating]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
MANTISSA = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}  # bits below the exponent


def widen(values: Values, dtype: str) -> Floats:
    """Patterns of ``dtype`` (a safetensors name) as float64, exactly. Raises ``FormatError`` if it is no float."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is a value like any other
        if dtype == "BF16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        return values.view(_native(dtype)).astype(np.float64)


def narrow(numbers: Floats, dtype: str) -> Values:
    """float64 numbers as patterns of ``dtype``, rounded once. Raises ``FormatError`` if it is no float."""
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is infinity, as IEEE 754 has it
        if dtype == "BF16":
            return _narrow_bf16(numbers)
        native = _native(dtype)
        narrowed = numbers.astype(native)
        narrowed[np.isnan(narrowed)] = np.nan
        return narrowed.view(f"<u{native.itemsize}")


def _native(dtype: str) -> np.dtype[np.floating]:
    if dtype not in _NATIVE:
        raise FormatError(f"cannot compute with {dtype[:20]}")
    return _NATIVE[dtype]


def _narrow_bf16(numbers: Floats) -> Values:
    """Through float32 rounded to odd: a second rounding to 16 bits is then as if it were the only one.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Transactions on Computers 57 (2008).
    """
    single = numbers.astype(np.float32)
    wide = single.astype(np.float64)
    bits = single.view(np.uint32)
    inexact = (wide != numbers) & np.isfinite(numbers) & np.isfinite(wide)
    away = inexact & (np.abs(wide) > np.abs(numbers))
    bits -= away  # truncated towards zero
    bits |= inexact  # and the last bit set: sticky
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    rounded[np.isnan(numbers)] = 0x7FC0
    return rounded.astype(np.uint16)

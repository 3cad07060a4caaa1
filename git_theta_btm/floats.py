"""Bit patterns as numbers and back: what predictions and merges compute with.

Narrowing rounds to nearest, ties to even, and keeps infinities. Every NaN becomes the positive quiet one without a
payload: which of two payloads an operation hands on, and the sign of a NaN that it makes, differ between processors.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import FormatError
from .planes import Values

Floats: TypeAlias = npt.NDArray[np.floating]

TILE = 1 << 16  # elements computed with at a time: 512 KiB in float64, which stay in a second-level cache
MANTISSA = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}  # bits below the exponent
REAL = {"C32": "F16", "C64": "F32", "C128": "F64"}  # a complex number is two real ones side by side

_NATIVE: dict[str, np.dtype[np.floating]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
# Mantissa bits, exponent bias, and the magnitude (as a pattern) from which on there is no finite number: Micikevicius
# et al., arXiv:2209.05433; and ONNX's list for the types in which the pattern of minus zero is the only NaN.
_FLOAT8 = {
    "F8_E4M3": (3, 7, 0x7F),
    "F8_E5M2": (2, 15, 0x7C),
    "F8_E4M3FNUZ": (3, 8, 0x80),
    "F8_E5M2FNUZ": (2, 16, 0x80),
}


def is_float(dtype: str) -> bool:
    """Whether a type (a safetensors name) can be computed with."""
    return dtype in MANTISSA or dtype in _FLOAT8


def widen(values: Values, dtype: str) -> Floats:
    """Patterns of ``dtype`` (a safetensors name) as float64, exactly. Raises ``FormatError`` if it is no float."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is a value like any other
        if dtype == "BF16":
            _check_width(values, 2, dtype)
            wide = values.astype(np.uint32)
            wide <<= np.uint32(16)
            return wide.view(np.float32).astype(np.float64)
        if dtype in _FLOAT8:
            _check_width(values, 1, dtype)
            table: Floats = _float8(dtype)
            return np.asarray(table[values])
        return values.view(_native(dtype)).astype(np.float64)


def narrow(numbers: Floats, dtype: str) -> Values:
    """float64 numbers as patterns of ``dtype``, rounded once. Raises ``FormatError`` if it is no float."""
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is infinity, as IEEE 754 has it
        if dtype == "BF16":
            return _narrow_bf16(numbers)
        if dtype in _FLOAT8:
            return _narrow_float8(numbers, dtype)
        native = _native(dtype)
        narrowed = numbers.astype(native)
        if (nan := np.isnan(narrowed)).any():
            narrowed[nan] = np.nan
        return narrowed.view(f"<u{native.itemsize}")


def _check_width(values: Values, width: int, dtype: str) -> None:
    if values.itemsize != width:
        raise FormatError(f"patterns of {values.itemsize} bytes are no {dtype}")


def _native(dtype: str) -> np.dtype[np.floating]:
    if dtype not in _NATIVE:
        raise FormatError(f"cannot compute with {dtype[:20]}")
    return _NATIVE[dtype]


def _narrow_bf16(numbers: Floats) -> Values:
    """Through float32, whose own rounding matters only where it ends between two neighbours that were not equally near:
    what it dropped decides there."""
    single = numbers.astype(np.float32)
    bits = single.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    narrowed = rounded.astype(np.uint16)
    between = single.astype(np.float64) != numbers
    if between.any():
        between &= bits.astype(np.uint16) == 0x8000
        if between.any():
            dropped = np.abs(numbers[between]) > np.abs(single[between].astype(np.float64))
            narrowed[between] = (bits[between] >> np.uint32(16)) + dropped
        if (nan := np.isnan(single)).any():  # no NaN equals itself
            narrowed[nan] = 0x7FC0
    return narrowed


@cache
def _float8(dtype: str) -> Floats:
    """The 256 numbers of an 8-bit type, by their patterns."""
    mantissa, bias, limit = _FLOAT8[dtype]
    codes = np.arange(256)
    magnitude = codes & 0x7F
    exponent, fraction = magnitude >> mantissa, magnitude & ((1 << mantissa) - 1)
    significand = np.where(exponent > 0, fraction + (1 << mantissa), fraction).astype(np.float64)
    numbers: Floats = np.ldexp(significand, np.maximum(exponent, 1) - bias - mantissa)
    numbers[magnitude >= limit] = np.nan
    if dtype == "F8_E5M2":
        numbers[magnitude == limit] = np.inf
    numbers = np.where(codes >= 0x80, -numbers, numbers)
    if limit == 0x80:  # these have one zero: the other pattern is the only NaN
        numbers[0x80] = np.nan
    return numbers


def _narrow_float8(numbers: Floats, dtype: str) -> Values:
    """By the middles between neighbours. What rounds to more than the largest number is infinite, or NaN where there
    is no infinity."""
    limit = _FLOAT8[dtype][2]
    steps = _float8(dtype)[:limit] if limit < 0x80 else _float8(dtype)[:0x80]
    middles = (steps[1:] + steps[:-1]) / 2
    middles = np.append(middles, steps[-1] + (steps[-1] - steps[-2]) / 2)
    magnitudes = np.abs(numbers)
    codes = np.searchsorted(middles, magnitudes)
    tie = magnitudes == middles[np.minimum(codes, len(middles) - 1)]
    codes += tie & (codes % 2 == 1)
    narrowed = codes.astype(np.uint8)
    one_zero = limit == 0x80
    narrowed[np.signbit(numbers) & ((codes > 0) | (not one_zero))] |= 0x80
    beyond = codes >= len(steps)
    narrowed[np.isnan(numbers) | (beyond & (dtype != "F8_E5M2"))] = 0x80 if one_zero else 0x7F
    return narrowed

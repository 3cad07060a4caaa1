"""Widening is exact; narrowing is rounded once, to nearest, ties to even: compared with exact rationals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import FormatError
from git_theta_btm.floats import MANTISSA, narrow, widen

# bits of the exponent, bits of the mantissa, bytes
FORMS = {"F16": (5, 10, 2), "BF16": (8, 7, 2), "F32": (8, 23, 4), "F64": (11, 52, 8)}
CANONICAL_NAN = {"F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000, "F64": 0x7FF8000000000000}
HALVES = ["F16", "BF16"]


def value(pattern: int, dtype: str) -> Fraction | float:
    """What a pattern means by IEEE 754: an exact rational, or an infinity or NaN."""
    exponent_bits, mantissa_bits, size = FORMS[dtype]
    sign = -1 if pattern >> (8 * size - 1) else 1
    exponent = pattern >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = pattern & ((1 << mantissa_bits) - 1)
    bias = (1 << exponent_bits - 1) - 1
    if exponent == (1 << exponent_bits) - 1:
        return math.nan if mantissa else sign * math.inf
    if exponent:
        return sign * Fraction((1 << mantissa_bits) + mantissa) * Fraction(2) ** (exponent - bias - mantissa_bits)
    return sign * Fraction(mantissa) * Fraction(2) ** (1 - bias - mantissa_bits)


def rounded(number: float, dtype: str) -> int:
    """The nearest pattern, ties to the even one, found by bisection over all positive patterns."""
    exponent_bits, mantissa_bits, size = FORMS[dtype]
    sign = (1 << 8 * size - 1) if math.copysign(1, number) < 0 else 0
    exact = abs(Fraction(number))
    low, high = 0, ((1 << exponent_bits) - 1) << mantissa_bits  # the last is infinity, here the next power of two
    largest = value(high - 1, dtype) + (value(high - 1, dtype) - value(high - 2, dtype)) / 2
    if exact >= largest:
        return sign | high
    high -= 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle, dtype) <= exact else (low, middle)
    below, above = exact - value(low, dtype), value(high, dtype) - exact
    nearest = low if below < above or (below == above and low % 2 == 0) else high
    return sign | nearest


def patterns(dtype: str, count: int = 1 << 16) -> np.ndarray:
    size = FORMS[dtype][2]
    if size == 2:
        return np.arange(1 << 16).astype("<u2")
    return np.frombuffer(np.random.default_rng(0).bytes(size * count), f"<u{size}")


def one(number: float, dtype: str) -> int:
    return int(narrow(np.array([number], np.float64), dtype)[0])


@pytest.mark.parametrize("dtype", FORMS)
def test_widening_is_exact(dtype: str) -> None:
    chosen = patterns(dtype, 2000)[:: 37 if FORMS[dtype][2] == 2 else 1]
    for pattern, number in zip(chosen.tolist(), widen(chosen, dtype).tolist(), strict=True):
        expected = value(pattern, dtype)
        if isinstance(expected, Fraction):
            assert Fraction(number) == expected
            assert math.copysign(1, number) == (-1 if pattern >> 8 * FORMS[dtype][2] - 1 else 1)
        else:
            assert number == expected or (math.isnan(number) and math.isnan(expected))


@pytest.mark.parametrize("dtype", FORMS)
def test_what_was_widened_narrows_to_itself(dtype: str) -> None:
    values = patterns(dtype)
    wide = widen(values, dtype)
    number = ~np.isnan(wide)
    assert np.array_equal(narrow(wide, dtype)[number], values[number])


@pytest.mark.parametrize("dtype", FORMS)
def test_every_nan_becomes_the_same(dtype: str) -> None:
    """Processors differ in the sign and payload of a NaN that they compute, and predictions must not."""
    wide = widen(patterns(dtype, 300_000), dtype)
    signed = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF0000000000001, 0xFFFFFFFFFFFFFFFF], "<u8")
    for nans in (wide[np.isnan(wide)], signed.view("<f8")):
        assert len(nans)
        assert set(narrow(nans, dtype).tolist()) == {CANONICAL_NAN[dtype]}


@settings(max_examples=200)
@given(st.floats(allow_nan=False), st.sampled_from(["F16", "BF16", "F32"]))
@example(-0.0, "BF16")
@example(5e-324, "BF16")
@example(-5e-324, "F32")
@example(65519.999999999996, "F16")
@example(65520.0, "F16")
@example(3.3961775292304602e38, "BF16")
@example(3.3961775292304601e38, "BF16")
@example(3.4028235677973366e38, "F32")
@example(3.4028235677973362e38, "F32")
@example(-math.inf, "F16")
@example(1.7976931348623157e308, "BF16")
def test_narrowing_rounds_to_nearest(number: float, dtype: str) -> None:
    exponent_bits, mantissa_bits, size = FORMS[dtype]
    if math.isinf(number):
        sign = (1 << 8 * size - 1) if number < 0 else 0
        assert one(number, dtype) == sign | ((1 << exponent_bits) - 1) << mantissa_bits
    else:
        assert one(number, dtype) == rounded(number, dtype)


@settings(max_examples=200)
@given(st.data(), st.sampled_from(["F16", "BF16", "F32"]))
def test_ties_and_their_neighbours(data: st.DataObject, dtype: str) -> None:
    """Halfway between two patterns, and one double to either side: where rounding twice goes wrong."""
    exponent_bits, mantissa_bits, _ = FORMS[dtype]
    pattern = data.draw(st.integers(0, (((1 << exponent_bits) - 1) << mantissa_bits) - 2))
    tie = float((value(pattern, dtype) + value(pattern + 1, dtype)) / 2)
    sign = data.draw(st.sampled_from([1, -1]))
    for number in (math.nextafter(tie, -math.inf), tie, math.nextafter(tie, math.inf)):
        assert one(sign * number, dtype) == rounded(sign * number, dtype)
    assert one(tie, dtype) == pattern + pattern % 2


@pytest.mark.parametrize("dtype", HALVES)
def test_ties_between_all_patterns_of_sixteen_bits(dtype: str) -> None:
    exponent_bits, mantissa_bits, _ = FORMS[dtype]
    low = np.arange((((1 << exponent_bits) - 1) << mantissa_bits) - 1).astype("<u2")
    ties = (widen(low, dtype) + widen(low + np.uint16(1), dtype)) / 2
    assert np.array_equal(narrow(ties, dtype), low + low % np.uint16(2))
    assert np.array_equal(narrow(np.nextafter(ties, np.inf), dtype), low + np.uint16(1))
    assert np.array_equal(narrow(np.nextafter(ties, -np.inf), dtype), low)
    assert np.array_equal(narrow(-ties, dtype), (low + low % np.uint16(2)) | np.uint16(0x8000))


def test_torch_rounds_the_same() -> None:
    torch = pytest.importorskip("torch")
    wide = widen(np.frombuffer(np.random.default_rng(0).bytes(800_000), "<u4"), "F32")
    wide = wide[np.isfinite(wide)]
    single = torch.from_numpy(narrow(wide, "F32").view("<f4"))
    assert np.array_equal(narrow(wide, "BF16"), single.to(torch.bfloat16).view(torch.uint16).numpy())
    assert np.array_equal(narrow(wide, "F16"), single.to(torch.float16).view(torch.uint16).numpy())


@pytest.mark.parametrize("dtype", FORMS)
def test_the_argument_is_left_alone(dtype: str) -> None:
    numbers = np.array([1.0, math.nan, -0.0, math.inf])
    numbers.flags.writeable = False
    assert narrow(numbers, dtype)[1] == CANONICAL_NAN[dtype]
    assert math.isnan(numbers[1])


@pytest.mark.parametrize("dtype", ["I32", "F8_E8M0", "", "bf16", "x" * 10_000])
def test_what_is_no_float(dtype: str) -> None:
    with pytest.raises(FormatError):
        widen(np.zeros(1, "<u4"), dtype)
    with pytest.raises(FormatError):
        narrow(np.zeros(1), dtype)


def test_mantissas_are_those_of_the_types() -> None:
    assert {name: bits for name, (_, bits, _) in FORMS.items()} == MANTISSA


EIGHT = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


@pytest.mark.parametrize("dtype", EIGHT)
def test_all_numbers_of_eight_bits(dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    patterns = np.arange(256, dtype=np.uint8)
    expected = patterns.view(getattr(ml_dtypes, EIGHT[dtype])).astype(np.float64)
    assert np.array_equal(widen(patterns, dtype), expected, equal_nan=True)
    finite = patterns[np.isfinite(expected)]
    assert np.array_equal(narrow(widen(finite, dtype), dtype), finite)


@pytest.mark.parametrize("dtype", EIGHT)
def test_rounding_to_eight_bits(dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    every = widen(np.arange(128, dtype=np.uint8), dtype)
    middles = (every[1:] + every[:-1]) / 2
    spread = rng.normal(0, 1, 10_000) * 10.0 ** rng.integers(-6, 6, 10_000)
    numbers = np.concatenate([spread, middles, -middles, [np.inf, -np.inf, 0.0, -0.0]])
    numbers = numbers[~np.isnan(numbers)]
    expected = numbers.astype(getattr(ml_dtypes, EIGHT[dtype]))
    got = narrow(numbers, dtype).view(expected.dtype)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    there = ~np.isnan(expected.astype(np.float64))
    assert np.array_equal(got.view(np.uint8)[there], expected.view(np.uint8)[there])


def test_averages_of_two_are_ties_more_often_than_not() -> None:
    """Every second sum of two bfloat16 numbers stands exactly between two of them."""
    patterns = np.random.default_rng(0).integers(0x3F80, 0x4000, (2, 1000)).astype(np.uint16)
    total = widen(patterns[0], "BF16") + widen(patterns[1], "BF16")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with np.errstate(invalid="ignore"):
        assert np.array_equal(narrow(total / 2, "BF16"), (total / 2).astype(ml_dtypes.bfloat16).view(np.uint16))

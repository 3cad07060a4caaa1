"""Residuals give back every bit pattern, whatever was predicted, and are small where the prediction is close."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import CorruptObject
from git_theta_btm.floats import MANTISSA
from git_theta_btm.planes import TYPES, Values
from git_theta_btm.residual import decode, encode

WIDTHS = sorted(TYPES)
GROUPS = {1: [None, 0, 3, 7], 2: [None, 7, 10, 15], 4: [None, 23, 0, 31], 8: [None, 52, 63]}
CASES = [(width, group) for width in WIDTHS for group in GROUPS[width]]


def back(values: Values, predicted: Values | None, group: int | None) -> Values:
    return decode(encode(values, predicted, group), predicted, group, (values.itemsize, len(values)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Values, Values, int | None]:
    """Values, a prediction that is arbitrary, close or right, and a way to group them."""
    width, group = draw(st.sampled_from(CASES))
    top = (1 << 8 * width) - 1
    edges = st.sampled_from([0, 1, top, top >> 1, (top >> 1) + 1])
    values = draw(st.lists(st.integers(0, top) | edges, min_size=1, max_size=50))
    near = st.integers(-3, 3).map(lambda step: ("near", step))
    far = (st.integers(0, top) | edges).map(lambda value: ("far", value))
    moves = draw(st.lists(draw(st.sampled_from([near, far])), min_size=len(values), max_size=len(values)))
    predicted = [(value + move) & top if kind == "near" else move for value, (kind, move) in zip(values, moves)]  # noqa: B905
    return np.array(values, TYPES[width]), np.array(predicted, TYPES[width]), group


@settings(max_examples=200)
@given(pairs())
def test_values_come_back_after_any_prediction(pair: tuple[Values, Values, int | None]) -> None:
    values, predicted, group = pair
    assert np.array_equal(back(values, predicted, group), values)
    assert np.array_equal(back(values, None, group), values)


@pytest.mark.parametrize("group", GROUPS[2])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_pattern_of_sixteen_bits(group: int | None, seed: int | None) -> None:
    """NaN payloads, negative zero, subnormals: all of them, against all of them in another order."""
    values = np.arange(1 << 16).astype("<u2")
    predicted = None if seed is None else np.random.default_rng(seed).permutation(values)
    assert np.array_equal(back(values, predicted, group), values)


@pytest.mark.parametrize(("width", "group"), CASES)
def test_large_arrays(width: int, group: int | None) -> None:
    numbers = np.random.default_rng(0)
    predicted = np.frombuffer(numbers.bytes(width * 100_003), TYPES[width])
    values = predicted + numbers.integers(0, 5, len(predicted)).astype(TYPES[width])
    assert np.array_equal(back(values, predicted, group), values)


@pytest.mark.parametrize(("width", "group"), CASES)
def test_a_right_prediction_takes_nothing(width: int, group: int | None) -> None:
    values = np.frombuffer(np.random.default_rng(0).bytes(width * 10_000), TYPES[width])
    assert encode(values, values.copy(), group) == b""
    assert np.array_equal(back(values, values.copy(), group), values)


def fine_tuned(dtype: str, count: int = 200_000) -> tuple[Values, Values]:
    """Weights before and after a gentle fine-tune."""
    numbers = np.random.default_rng(0)
    before = numbers.normal(0, 0.02, count).astype("f4")
    after = before + numbers.normal(0, 2e-4, count).astype("f4")
    if dtype == "BF16":
        return tuple((one.view("<u4") >> 16).astype("<u2") for one in (before, after))  # type: ignore[return-value]
    kind = {"F16": "f2", "F32": "f4", "F64": "f8"}[dtype]
    return tuple(one.astype(kind).view(kind.replace("f", "<u")) for one in (before, after))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_closer_is_smaller(dtype: str) -> None:
    """Alone, as a difference, and as a difference grouped by exponent: each clearly smaller than the last."""
    before, after = fine_tuned(dtype)
    sizes = [len(encode(after, None)), len(encode(after, before)), len(encode(after, before, MANTISSA[dtype]))]
    assert sizes[1] < 0.95 * sizes[0]
    assert sizes[2] < 0.99 * sizes[1]


def test_a_change_of_one_unit_in_the_last_place_is_kept() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype("f4").view("<u4")
    changed = values.copy()
    changed[54_321] += 1
    assert len(encode(changed, values)) < 100
    assert np.array_equal(back(changed, values, 23), changed)


def test_arguments_are_left_alone() -> None:
    before, after = fine_tuned("BF16", 10_000)
    copies = before.tobytes(), after.tobytes()
    for array in (before, after):
        array.flags.writeable = False
    for group in (None, 7):
        back(after, before, group)
    back(after, None, None)
    assert (before.tobytes(), after.tobytes()) == copies


@settings(max_examples=100)
@given(st.data(), st.sampled_from(CASES))
def test_a_damaged_payload_gives_values_or_an_error(data: st.DataObject, case: tuple[int, int | None]) -> None:
    width, group = case
    predicted = np.arange(300).astype(TYPES[width])
    damaged = bytearray(encode(predicted[::-1].copy(), predicted, group))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(CorruptObject):
        values = decode(bytes(damaged), predicted, group, (width, 300))
        assert (values.dtype, values.shape) == (TYPES[width], (300,))

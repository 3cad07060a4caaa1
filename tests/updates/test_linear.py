"""Linear predicts what a plain loop over Python's floats computes."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import CorruptObject
from git_theta_btm.floats import narrow, widen
from git_theta_btm.planes import TYPES, Values
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import Span
from git_theta_btm.updates.linear import predict

WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}


def by_hand(bases: list[Values], weights: list[float], dtype: str) -> Values:
    """The sum of one element after the other, in IEEE double precision."""
    columns = [widen(base, dtype).tolist() for base in bases]
    sums = []
    for row in zip(*columns, strict=True):
        terms = [weight * number for weight, number in zip(weights, row, strict=True) if weight]
        total = terms[0] if terms else row[0] * 0.0
        for term in terms[1:]:
            total += term
        sums.append(total)
    return narrow(np.array(sums), dtype)


def predicted(bases: list[Values], weights: list[float], dtype: str, span: Span | None = None) -> Values:
    sources = [BytesSource(base.tobytes()) for base in bases]
    parameters = {"dtype": dtype, "weights": [weight.hex() for weight in weights]}
    return predict(span or Span(0, bases[0].nbytes, WIDTH[dtype]), sources, parameters)


def finite(dtype: str, count: int, seed: int) -> Values:
    return narrow(np.random.default_rng(seed).normal(0, 1, count), dtype)


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(WIDTH)),
    st.lists(st.floats(-1e30, 1e30) | st.sampled_from([1 / 3, -0.0, 0.1]), min_size=1, max_size=5),
    st.data(),
)
def test_the_sum_of_a_plain_loop(dtype: str, weights: list[float], data: st.DataObject) -> None:
    size = 8 * WIDTH[dtype]
    bases = [np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), TYPES[WIDTH[dtype]]) for _ in weights]
    assert np.array_equal(predicted(bases, weights, dtype), by_hand(bases, weights, dtype))


@pytest.mark.parametrize("dtype", WIDTH)
def test_the_average_of_equals(dtype: str) -> None:
    base = finite(dtype, 1000, 0)
    assert np.array_equal(predicted([base, base], [0.5, 0.5], dtype), base)


@pytest.mark.parametrize("dtype", WIDTH)
def test_a_part_is_a_part_of_the_whole(dtype: str) -> None:
    bases = [finite(dtype, 1000, seed) for seed in range(3)]
    whole = predicted(bases, [1 / 3] * 3, dtype)
    width = WIDTH[dtype]
    part = predicted(bases, [1 / 3] * 3, dtype, Span(100 * width, 77 * width, width))
    assert np.array_equal(part, whole[100:177])


def test_the_order_of_the_bases_counts() -> None:
    """Sums of floats are not associative: 1e17 - 1e17 + 1 is 1, and 1e17 + 1 - 1e17 is 0."""
    bases = [np.array([number], "<f8").view("<u8") for number in (1e17, -1e17, 1.0)]
    assert struct.unpack("<d", predicted(bases, [1.0, 1.0, 1.0], "F64").tobytes()) == (1.0,)
    assert struct.unpack("<d", predicted([bases[0], bases[2], bases[1]], [1.0] * 3, "F64").tobytes()) == (0.0,)


def test_overflow_infinities_and_nan_make_no_noise() -> None:
    edges = np.array([math.inf, -math.inf, math.nan, 1e308, 5e-324]).view("<u8")
    total = predicted([edges, edges[::-1].copy()], [1e300, -1e300], "F64").view("<f8")
    assert np.isnan(total[2])
    assert total[0] == math.inf
    quiet = np.array([0x7F81], "<u2")  # a signalling NaN in BF16
    assert predicted([quiet], [1.0], "BF16").tolist() == [0x7FC0]


@pytest.mark.parametrize("weights", [[], ["0x1p0"], ["0x1p0"] * 3])
def test_as_many_weights_as_tensors(weights: list[str]) -> None:
    with pytest.raises(CorruptObject):
        predict(Span(0, 8, 4), [BytesSource(bytes(8))] * 2, {"dtype": "F32", "weights": weights})

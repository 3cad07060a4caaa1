"""The mathematics of merging: sums whose bits are defined, chance by name, vectors, rows and quantiles."""

from __future__ import annotations

from math import fsum, nan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from git_theta_btm.errors import ThetaError
from git_theta_btm.maths import chance, geometry, quantiles, rows, sums

NUMBERS = st.floats(-1e6, 1e6, width=32)
VECTORS = arrays(np.float64, st.integers(0, 300), elements=NUMBERS)
MATRICES = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=NUMBERS)
KEY = chance.key("a seed", "a parameter")


@given(VECTORS)
@settings(deadline=None, max_examples=200)
def test_sums_are_near_the_exact_ones(vector: Any) -> None:
    """The error of a sum by halves grows with the logarithm of its length."""
    bound = 2.0**-53 * 2 * max(1, len(vector).bit_length())
    assert abs(sums.total(vector) - fsum(vector)) <= bound * fsum(abs(vector))
    other = vector[::-1]
    assert abs(sums.dot(vector, other) - fsum(vector * other)) <= bound * fsum(abs(vector * other))


def test_a_sum_is_a_tree_of_additions() -> None:
    a, b, c, d, e = vector = np.array([1e16, 1.0, -1e16, 3.0, 0.1])
    assert sums.total(vector) == ((a + c) + (b + d)) + e == 4.1
    assert sums.total(vector[:1]) == 1e16
    assert sums.total(vector[:0]) == 0
    assert np.isnan(sums.total(np.array([1.0, nan, 2.0])))


@given(VECTORS)
@settings(deadline=None, max_examples=20)
def test_torch_sums_the_same_bits(vector: Any) -> None:
    torch = pytest.importorskip("torch")
    assert sums.total(torch.from_numpy(vector)) == sums.total(vector)


def test_weighted_sums_leave_out_what_has_no_weight() -> None:
    infinite, a, b = np.array([np.inf]), np.array([3.0]), np.array([5.0])
    assert sums.weighted([infinite, a, b], (0.0, 2.0, -1.0), 4.0) == 0.25
    assert sums.weighted([a], (1.0,)) is a
    assert sums.weighted([a, b], (0.0, 0.0)) == 0


def test_chance_is_the_stream_of_philox() -> None:
    words = np.frombuffer(KEY, "<u8")
    expected = np.random.Generator(np.random.Philox(key=words)).random(1000)
    assert (chance.uniform(KEY, 0, 1000) == expected).all()
    assert 0.45 < expected.mean() < 0.55


@given(st.integers(0, 500), st.integers(0, 500))
@settings(deadline=None, max_examples=100)
def test_chance_depends_on_the_place_alone(start: int, count: int) -> None:
    assert (chance.uniform(KEY, start, count) == chance.uniform(KEY, 0, 1000)[start : start + count]).all()


def test_chance_far_away() -> None:
    start = 2**40 + 3
    assert (chance.uniform(KEY, start, 9)[5:] == chance.uniform(KEY, start + 5, 4)).all()


def test_keys_tell_words_apart() -> None:
    keys = [chance.key(*words) for words in (("ab", "c"), ("a", "bc"), ("abc",), ("ab",), ())]
    assert len(set(keys)) == 5
    assert {len(key) for key in keys} == {16}
    assert chance.key("1", "w").hex() == "cb3092e3978a6e5ada241644003d7204"


@given(st.floats(-1e307, 1e307))
@settings(deadline=None, max_examples=200)
def test_steady_numbers_have_40_bits(number: float) -> None:
    found = geometry.steady(number)
    assert abs(found - number) <= abs(number) * 2.0**-40 or abs(number) < 1e-300
    mantissa = np.frexp(found)[0] * 2.0**40
    assert mantissa == round(mantissa)
    assert geometry.steady(found) == found


def test_steady_numbers_hide_the_last_bit() -> None:
    for number in (0.1, -2 / 3, 1.0, 12345.678):
        assert geometry.steady(np.nextafter(number, np.inf)) == geometry.steady(number)
    assert geometry.steady(np.inf) == np.inf
    assert geometry.steady(np.finfo(float).max) == np.finfo(float).max
    assert np.isnan(geometry.steady(nan))


@pytest.mark.parametrize("size", [1, 7, 200])
def test_inner_products_of_tiles(size: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 200))
    tiles = [list(vectors[:, start : start + size]) for start in range(0, 200, size)]
    found = geometry.gram(tiles, 3)
    np.testing.assert_allclose(found, vectors @ vectors.T, rtol=1e-12, atol=1e-12)
    assert found == [list(row) for row in zip(*found, strict=True)]
    assert geometry.gram([], 2) == [[0, 0], [0, 0]]


def test_inner_products_that_are_no_numbers() -> None:
    infinite = [[np.array([value])] for value in (np.inf, 1.0)]
    assert not geometry.measurable(geometry.gram(infinite, 1))
    assert np.isnan(geometry.combined([np.inf, -np.inf]))
    assert np.isnan(geometry.combined([1e308] * 3))
    assert geometry.combined([1e16, 1.0, -1e16]) == 1


def test_angles() -> None:
    lengths, angles = geometry.cosines([[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    assert lengths == [2, 3, 0]
    assert angles == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]
    assert geometry.length(angles, [1.0, 1.0, 7.0]) == sqrt(3)
    assert geometry.length(angles, [0.0, 0.0, 1.0]) == 0


def test_arcs() -> None:
    right = [[1.0, 0.0], [0.0, 1.0]]
    assert geometry.arc(right, 0.5) == pytest.approx((sqrt(0.5), sqrt(0.5)))
    assert geometry.arc(right, 1 / 3) == pytest.approx((sqrt(0.75), 0.5))
    for flat in ([[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]], [[1.0, nan], [nan, 1.0]], [[1.0, -1], [-1, 1.0]]):
        assert geometry.arc(flat, 0.25) == (0.75, 0.25)
    near = [[1.0, 0.9996], [0.9996, 1.0]]
    assert geometry.arc(near, 0.25, 0.9995) == (0.75, 0.25)
    assert geometry.arc(near, 0.25) != (0.75, 0.25)


def test_ends() -> None:
    assert geometry.ends((1, 2), 3) == (1, 2)
    assert geometry.ends((1,), 3) == (3, 1)
    with pytest.raises(ThetaError, match="base"):
        geometry.ends((1,), None)


@given(MATRICES)
@settings(deadline=None, max_examples=100)
def test_rows_have_the_same_sums_as_vectors(matrix: Any) -> None:
    assert rows.totals(matrix).tolist() == [sums.total(row) for row in matrix]
    assert rows.lengths(matrix, np).tolist() == [[sqrt(sums.dot(row, row))] for row in matrix]


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("axis", [0, -1])
def test_tables(shape: tuple[int, ...], axis: int) -> None:
    array = np.random.default_rng(0).standard_normal(shape)
    matrix = rows.table(np.asarray(array), np, axis)
    assert matrix.shape[1] == (shape[axis] if shape else 1)
    if len(shape) == 2:
        assert (matrix == (array if axis else array.T)).all()
    assert (rows.restored(matrix, np, shape, axis) == array).all()


def test_growth() -> None:
    exponents = np.concatenate([np.linspace(-699, 699, 1000), np.linspace(-1, 1, 1000), np.geomspace(1e-300, 1, 100)])
    np.testing.assert_allclose(rows.growth(exponents, np), np.expm1(exponents), rtol=1e-12)
    assert rows.growth(np.array([0.0]), np) == 0
    assert np.isfinite(rows.growth(np.array([-np.inf, np.inf, 1e300]), np)).all()
    assert np.isnan(rows.growth(np.array([nan]), np)).all()


@pytest.mark.parametrize("spread", [1e-4, 1e-2, 1.0, 20.0])
def test_divergences(spread: float) -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal((5, 40))
    b = a + spread * random.standard_normal((5, 40))
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (wide_b, wide_a))
    expected = (p * np.log(p / q)).sum(-1, keepdims=True)
    np.testing.assert_allclose(rows.softmax(b, np), p.astype(np.float64), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(rows.divergence(b, a, np), expected.astype(np.float64), rtol=1e-7)
    assert (rows.divergence(a, a, np) == 0).all()
    assert rows.divergence(a[:, :1], b[:, :1], np).tolist() == [[0.0]] * 5


@given(arrays(np.float64, st.integers(1, 50), elements=NUMBERS), st.floats(0, 1))
@settings(deadline=None, max_examples=100)
def test_quantiles(values: Any, share: float) -> None:
    found = quantiles.quantiles(values, (share, 0.0, 0.5, 1.0))
    span = float(np.ptp(values))
    np.testing.assert_allclose(found, np.quantile(values, [share, 0, 0.5, 1]), rtol=1e-12, atol=1e-12 * span)
    assert found[1] == values.min()
    assert found[3] == values.max()


def test_quantiles_of_infinities() -> None:
    assert quantiles.quantiles(np.array([np.inf, 1.0, np.inf]), (0.0, 0.5, 1.0)) == [1, np.inf, np.inf]

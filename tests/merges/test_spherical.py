"""Slerp, nuslerp, multislerp and karcher against their definitions, by NumPy on whole vectors."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.linalg import norm

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Linear, Sides, Strategy, Tile
from git_theta_btm.merges.karcher import Karcher
from git_theta_btm.merges.multislerp import MultiSlerp
from git_theta_btm.merges.nuslerp import NuSlerp, NuSlerpRows
from git_theta_btm.merges.slerp import Slerp

STRATEGIES: list[Linear] = [Slerp(t=0.3), NuSlerp(), NuSlerp(deltas=False), MultiSlerp(), Karcher()]
NAMES = ["slerp", "nuslerp", "nuslerp-whole", "multislerp", "karcher"]


def made(count: int, shape: tuple[int, ...] = (50,), spread: float = 1.0) -> tuple[Any, list[Any]]:
    random = np.random.default_rng(6)
    base = random.standard_normal(shape)
    return base, [base + spread * random.standard_normal(shape) for _ in range(count)]


def sides(tips: list[Any], base: Any = None, weights: tuple[float, ...] = (), size: int = 1 << 16) -> Sides:
    """A parameter in tiles of some size, or whole if the size is 0."""
    weights = weights or (1.0,) * len(tips)

    def tiles() -> list[Tile]:
        if not size:
            return [Tile(tuple(tips), weights, base)]
        flat: list[Any] = [None if array is None else array.reshape(-1) for array in (base, *tips)]
        starts = range(0, max(1, len(flat[1])), size)
        cuts = [[None if array is None else array[start : start + size] for array in flat] for start in starts]
        return [Tile(tuple(cut[1:]), weights, cut[0], start) for start, cut in zip(starts, cuts, strict=True)]

    return Sides("w", tuple(tips[0].shape), weights, tiles, has_base=base is not None)


def merged(strategy: Strategy, tips: list[Any], base: Any = None, weights: tuple[float, ...] = ()) -> Any:
    parameter = sides(tips, base, weights, size=0 if strategy.whole else 1 << 16)
    measures = strategy.measure(parameter, {})
    return np.concatenate([strategy.combine(tile, measures).reshape(-1) for tile in parameter.tiles()])


def slerp(a: Any, b: Any, t: float) -> Any:
    angle = np.arccos(a @ b / norm(a) / norm(b))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


@pytest.mark.parametrize("t", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_slerp(t: float, spread: float) -> None:
    base, (a, b) = made(2, spread=spread)
    np.testing.assert_allclose(merged(Slerp(t=t), [a, b]), slerp(a, b, t), rtol=1e-10, atol=1e-10)
    assert (merged(Slerp(t=t), [a, b], base) == merged(Slerp(t=t), [a, b])).all()
    assert (merged(Slerp(t=t), [b], a) == merged(Slerp(t=t), [a, b])).all()


def test_slerp_from_end_to_end() -> None:
    assert [Slerp(t=0).choice(2), Slerp(t=1).choice(2)] == [0, 1]
    assert [Slerp(t=0).choice(1), Slerp(t=1).choice(1)] == [-1, 0]
    assert Slerp().choice(2) is None
    _, (a, b) = made(2)
    np.testing.assert_allclose(merged(Slerp(t=0), [a, b]), a, rtol=1e-11)
    np.testing.assert_allclose(merged(Slerp(t=1), [a, b]), b, rtol=1e-11)
    with pytest.raises(ThetaError, match="base"):
        merged(Slerp(), [a])


def test_slerp_keeps_the_length_of_unit_vectors() -> None:
    _, (a, b) = made(2)
    assert norm(merged(Slerp(t=0.3), [a / norm(a), b / norm(b)])) == pytest.approx(1)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 1.001, 0.0])
@pytest.mark.parametrize("strategy", [Slerp(t=0.25), NuSlerp(deltas=False)])
def test_no_arc_between_parallel_vectors(strategy: Strategy, factor: float) -> None:
    _, (a,) = made(1)
    expected = 0.75 * a + 0.25 * factor * a
    np.testing.assert_allclose(merged(strategy, [a, factor * a], weights=(3.0, 1.0)), expected, rtol=1e-12)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (0.2, 0.6), (2.0, -0.5), (0.0, 1.0)])
def test_nuslerp(weights: tuple[float, ...]) -> None:
    base, (a, b) = made(2)
    t = weights[1] / sum(weights)
    np.testing.assert_allclose(merged(NuSlerp(), [a, b], weights=weights), slerp(a, b, t), rtol=1e-9, atol=1e-11)
    expected = base + slerp(a - base, b - base, t)
    np.testing.assert_allclose(merged(NuSlerp(), [a, b], base, weights), expected, rtol=1e-9, atol=1e-11)
    whole = merged(NuSlerp(deltas=False), [a, b], base, weights)
    assert (whole == merged(NuSlerp(), [a, b], weights=weights)).all()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 4, 5), (7,), (1, 1)])
@pytest.mark.parametrize("along", ["rows", "columns"])
def test_nuslerp_by_rows(shape: tuple[int, ...], along: str) -> None:
    base, (a, b) = made(2, shape)
    axis = -1 if along == "rows" else 0
    found = merged(NuSlerpRows(along=along), [a, b], base, (3.0, 1.0)).reshape(shape)
    left, right, start, result = (np.moveaxis(array, axis, -1) for array in (a - base, b - base, base, found))
    for place in np.ndindex(left.shape[:-1]):
        x, y = left[place], right[place]
        expected = slerp(x, y, 0.25) if x.size > 1 else 0.75 * x + 0.25 * y
        np.testing.assert_allclose(result[place], start[place] + expected, rtol=1e-9, atol=1e-11)


def test_rows_of_a_vector_are_all_of_it() -> None:
    base, tips = made(2)
    np.testing.assert_allclose(merged(NuSlerpRows(), tips, base), merged(NuSlerp(), tips, base), rtol=1e-11)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 0.4), (3.0, -1.0, 0.5), (0.0, 1.0, 1.0)])
@pytest.mark.parametrize("strategy", [MultiSlerp(), MultiSlerp(normalize_weights=False), MultiSlerp(deltas=False)])
def test_multislerp(weights: tuple[float, ...], strategy: MultiSlerp) -> None:
    """The definition, with its step in the tangent space."""
    base, tips = made(3)
    vectors = [tip - base if strategy.deltas else tip for tip in tips]
    shares = np.array(weights) / (sum(weights) if strategy.normalize_weights else 1)
    units = [vector / norm(vector) for vector in vectors]
    mean = sum(w * u for w, u in zip(shares, units, strict=True))
    mean = mean / norm(mean)
    step = sum(w * (u - (u @ mean) * mean) for w, u in zip(shares, units, strict=True))
    size = norm(step) + 1e-8
    unit = mean * np.cos(size) + step * np.sin(size) / size
    expected = unit * sum(w * norm(vector) for w, vector in zip(shares, vectors, strict=True))
    expected = expected + base if strategy.deltas else expected
    found = merged(strategy, tips, base, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_multislerp_of_what_has_no_direction() -> None:
    base, (a, b) = made(2)
    zero = a * 0
    np.testing.assert_allclose(merged(MultiSlerp(), [base, base, base], base), base, rtol=1e-15)
    np.testing.assert_allclose(merged(MultiSlerp(), [a, -a, zero]), zero, atol=1e-15)
    np.testing.assert_allclose(merged(MultiSlerp(), [a, -3 * a]), -a, rtol=1e-9)
    np.testing.assert_allclose(merged(MultiSlerp(), [a, zero]), a / 2, rtol=1e-12)
    np.testing.assert_allclose(merged(MultiSlerp(), [base, b], base, (1.0, 3.0)), base + 0.75 * (b - base), rtol=1e-9)


def karcher(tips: list[Any], weights: tuple[float, ...]) -> Any:
    """Until nothing moves any more, on whole vectors."""
    shares = np.array(weights) / sum(weights)
    units = [tip / norm(tip) for tip in tips]
    mean = sum(w * u for w, u in zip(shares, units, strict=True))
    mean = mean / norm(mean)
    for _ in range(200):
        angles = [np.arccos(np.clip(u @ mean, -1, 1)) for u in units]
        step = sum(
            w * angle / np.sin(angle) * (u - np.cos(angle) * mean)
            for w, angle, u in zip(shares, angles, units, strict=True)
        )
        size = norm(step)
        if size < 1e-14:
            break
        mean = np.cos(size) * mean + np.sin(size) * step / size
    return mean * sum(w * norm(tip) for w, tip in zip(shares, tips, strict=True))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (5.0, 1.0, 0.5, 2.0)])
@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
def test_karcher(weights: tuple[float, ...], spread: float) -> None:
    _, tips = made(4, spread=spread)
    found = merged(Karcher(max_iter=200, tol=1e-9), tips, weights=weights)
    np.testing.assert_allclose(found, karcher(tips, weights), rtol=1e-7, atol=1e-7 * float(norm(found)))


def test_karcher_of_two_is_the_middle_of_their_arc() -> None:
    _, (a, b) = made(2)
    b = b * norm(a) / norm(b)
    np.testing.assert_allclose(merged(Karcher(), [a, b]), slerp(a, b, 0.5), rtol=1e-9)
    np.testing.assert_allclose(
        merged(Karcher(max_iter=50, tol=0), [a, b], weights=(3.0, 1.0)), slerp(a, b, 0.25), rtol=1e-7
    )


def test_karcher_of_what_has_no_direction() -> None:
    _, (a, b) = made(2)
    zero = a * 0
    assert (merged(Karcher(), [zero, zero]) == 0).all()
    np.testing.assert_allclose(merged(Karcher(), [a, zero, zero]), a / 3, rtol=1e-11)
    np.testing.assert_allclose(merged(Karcher(), [a, -a]), zero, atol=1e-15)
    np.testing.assert_allclose(merged(Karcher(), [a, a, -a, b])[:0], [])
    assert np.isfinite(merged(Karcher(), [a, a, -a])).all()
    assert Karcher().choice(1) == 0
    for weights in ((1.0, -0.5), (0.0, 0.0)):
        with pytest.raises(ThetaError, match="not negative"):
            merged(Karcher(), [a, b], weights=weights)


@pytest.mark.parametrize("strategy", [NuSlerp(), NuSlerpRows(), MultiSlerp()])
def test_weights_that_sum_to_nothing(strategy: Strategy) -> None:
    _, tips = made(2)
    with pytest.raises(ThetaError, match="sum to 0"):
        merged(strategy, tips, weights=(1.0, -1.0))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=NAMES)
def test_equal_models_make_the_same_again(strategy: Strategy) -> None:
    base, (a,) = made(1)
    np.testing.assert_allclose(merged(strategy, [a, a], base), a, rtol=1e-11)
    np.testing.assert_allclose(merged(strategy, [base, base], base), base, rtol=1e-11)


@pytest.mark.parametrize("strategy", [*STRATEGIES, NuSlerpRows()], ids=[*NAMES, "nuslerp-rows"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 2)])
def test_any_shape(strategy: Strategy, shape: tuple[int, ...]) -> None:
    base, tips = made(2, shape)
    found = merged(strategy, [np.asarray(tip) for tip in tips], np.asarray(base))
    assert found.size == np.prod(shape, dtype=int)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("strategy", [*STRATEGIES, NuSlerpRows()], ids=[*NAMES, "nuslerp-rows"])
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_where_it_is(strategy: Strategy, strange: float) -> None:
    base, tips = made(2)
    tips[0][3] = strange
    assert np.flatnonzero(~np.isfinite(merged(strategy, tips, base))).tolist() == [3]


def test_infinities_of_both_signs_are_no_error() -> None:
    base, tips = made(2)
    tips[0][3], tips[1][3] = np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        for strategy in STRATEGIES:
            assert np.flatnonzero(np.isnan(merged(strategy, tips, base))).tolist() == [3]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=NAMES)
@pytest.mark.parametrize("size", [1, 7])
def test_tiles_of_any_size(strategy: Strategy, size: int) -> None:
    base, tips = made(2)
    measures = strategy.measure(sides(tips, base), {})
    parts = [strategy.combine(tile, measures) for tile in sides(tips, base, size=size).tiles()]
    assert np.concatenate(parts).tobytes() == merged(strategy, tips, base).tobytes()
    again = strategy.measure(sides(tips, base, size=size), {})
    np.testing.assert_allclose(again["tips"], measures["tips"], rtol=1e-9)


PLANE = arrays(np.float64, st.tuples(st.integers(2, 5), st.just(2)), elements=st.sampled_from([-2, -1, 0, 1e-9, 1, 3]))


@given(PLANE, st.lists(st.sampled_from([0.25, 1.0, 1 + 1e-9]), min_size=5, max_size=5))
@settings(deadline=None, max_examples=200)
def test_whatever_is_opposite_parallel_or_zero(tips: Any, weights: list[float]) -> None:
    """The result is finite, and no longer than the weighted lengths."""
    shares = tuple(weights[: len(tips)])
    for strategy in (MultiSlerp(), Karcher(), Karcher(max_iter=100, tol=0)):
        found = merged(strategy, list(tips), weights=shares)
        longest = sum(w * norm(tip) for w, tip in zip(shares, tips, strict=True)) / sum(shares)
        assert norm(found) <= longest * 1.1 + 1e-12


@pytest.mark.parametrize("strategy", [MultiSlerp(), Karcher()])
def test_many_models_in_any_order(strategy: Linear) -> None:
    _, tips = made(3)
    weights = (0.5, 0.3, 0.9)
    found = strategy.coefficients(sides(tips, weights=weights)).tips
    for order in permutations(range(3)):
        moved = strategy.coefficients(sides([tips[i] for i in order], weights=tuple(weights[i] for i in order))).tips
        np.testing.assert_allclose(moved, [found[i] for i in order], rtol=1e-11)
    _, tips = made(64)
    assert np.isfinite(merged(strategy, tips)).all()


@pytest.mark.parametrize("strategy", [*STRATEGIES, NuSlerpRows()], ids=[*NAMES, "nuslerp-rows"])
def test_torch_computes_the_same_bits(strategy: Strategy) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made(2, (11, 17))
    size = 0 if strategy.whole else 64
    parameter = sides([torch.from_numpy(tip) for tip in tips], torch.from_numpy(base), size=size)
    same = sides(tips, base, size=size)
    measures = strategy.measure(parameter, {})
    assert measures == strategy.measure(same, {})
    for tile, other in zip(parameter.tiles(), same.tiles(), strict=True):
        found = strategy.combine(tile, measures)
        assert found.numpy().tobytes() == strategy.combine(other, measures).tobytes()

"""Model stock: between the base and the mean of the models, by how much they agree."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.linalg import norm

from git_theta_btm.merges import Sides, Strategy, Tile
from git_theta_btm.merges.model_stock import ModelStock, ModelStockRows

BOTH = [ModelStock(), ModelStockRows()]


def made(count: int, shape: tuple[int, ...] = (40,), shared: float = 1.0) -> tuple[Any, list[Any]]:
    """Models that have some of what they learned in common."""
    random = np.random.default_rng(7)
    base, common = random.standard_normal((2, *shape))
    return base, [base + 0.1 * (shared * common + random.standard_normal(shape)) for _ in range(count)]


def merged(strategy: Strategy, base: Any, tips: list[Any], size: int = 1 << 16) -> Any:
    shape, weights = tuple(base.shape), (1.0,) * len(tips)
    whole = Tile(tuple(tips), weights, base)
    if strategy.whole:
        return strategy.combine(whole, strategy.measure(Sides("w", shape, weights, lambda: [whole], has_base=True), {}))
    base, tips = base.reshape(-1), [tip.reshape(-1) for tip in tips]
    flat = Tile(tuple(tips), weights, base)
    measures = strategy.measure(Sides("w", shape, weights, lambda: [flat], has_base=True), {})
    parts = []
    for start in range(0, max(1, len(base)), size):
        cut = slice(start, start + size)
        tile = Tile(tuple(tip[cut] for tip in tips), weights, base[cut], start)
        parts.append(strategy.combine(tile, measures))
    return np.concatenate(parts).reshape(shape)


def reference(base: Any, tips: list[Any]) -> Any:
    deltas, count = [tip - base for tip in tips], len(tips)
    cosine = np.mean([a @ b / norm(a) / norm(b) for a, b in combinations(deltas, 2)])
    t = count * cosine / (1 + (count - 1) * cosine)
    return t * sum(tips) / count + (1 - t) * base


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("shared", [0.5, 1.0, 10.0])
def test_the_formula(count: int, shared: float) -> None:
    base, tips = made(count, shared=shared)
    for strategy in BOTH:
        np.testing.assert_allclose(merged(strategy, base, tips), reference(base, tips), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 30), (2, 3, 30)])
def test_each_row_has_its_own_share(shape: tuple[int, ...]) -> None:
    base, tips = made(3, shape, shared=2.0)
    found = merged(ModelStockRows(), base, tips)
    for place in np.ndindex(shape[:-1]):
        expected = reference(base[place], [tip[place] for tip in tips])
        np.testing.assert_allclose(found[place], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("strategy", BOTH)
def test_models_that_disagree_leave_the_base(strategy: Strategy) -> None:
    base, (a, b) = made(2)
    assert (merged(strategy, base, [a, 2 * base - a]) == base).all()
    assert (merged(strategy, base, [base, b, base]) == base).all()


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("count", [2, 4])
def test_equal_models_make_the_same_again(strategy: Strategy, count: int) -> None:
    base, (a,) = made(1)
    assert (merged(strategy, base, [a] * count) == a).all()
    assert (merged(strategy, base, [base] * count) == base).all()
    assert strategy.least == 2
    assert strategy.needs_base


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_is(strategy: Strategy, strange: float) -> None:
    base, tips = made(3)
    tips[1][5] = strange
    with np.errstate(invalid="ignore"):
        found = merged(strategy, base, tips)
    assert np.flatnonzero(~np.isfinite(found)).tolist() == [5]
    np.testing.assert_allclose(np.delete(found, 5), np.delete(sum(tips) / 3, 5))


@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("shape", [(), (0,), (4, 0), (1,), (1, 1), (3, 1)])
def test_any_shape(strategy: Strategy, shape: tuple[int, ...]) -> None:
    base, tips = made(64, shape)
    found = merged(strategy, np.asarray(base), [np.asarray(tip) for tip in tips])
    assert found.shape == shape
    assert np.isfinite(found).all()


@pytest.mark.parametrize("size", [1, 7])
def test_tiles_of_any_size(size: int) -> None:
    base, tips = made(3)
    assert (merged(ModelStock(), base, tips, size) == merged(ModelStock(), base, tips)).all()


@pytest.mark.parametrize("strategy", BOTH)
def test_torch_computes_the_same_bits(strategy: Strategy) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made(3, (5, 13) if strategy.whole else (65,))
    tile = Tile(tuple(map(torch.from_numpy, tips)), (1.0,) * 3, torch.from_numpy(base))
    sides = Sides("w", tuple(base.shape), (1.0,) * 3, lambda: [tile], has_base=True)
    found = strategy.combine(tile, strategy.measure(sides, {}))
    assert found.numpy().tobytes() == merged(strategy, base, tips).tobytes()


def test_torch_computes_the_same_bits_of_many_rows() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made(2, (20000, 3))
    tile = Tile(tuple(map(torch.from_numpy, tips)), (1.0,) * 2, torch.from_numpy(base))
    assert ModelStockRows().combine(tile, {}).numpy().tobytes() == merged(ModelStockRows(), base, tips).tobytes()

"""RAM and RAM+: what several models changed is averaged, what one changed is kept, or amplified."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Sides, Strategy, Tile
from git_theta_btm.merges.ram import Ram, RamPlus, RamPlusModel

ALL: list[Strategy] = [Ram(), RamPlus(), RamPlusModel(r=0.5, alpha=3)]


def made(count: int = 3, size: int = 200, density: float = 0.4) -> tuple[Any, list[Any]]:
    """Models that each changed some elements."""
    random = np.random.default_rng(9)
    base = random.standard_normal(size)
    return base, [base + random.standard_normal(size) * (random.random(size) < density) for _ in range(count)]


def sides(base: Any, tips: list[Any], size: int = 1 << 16) -> Sides:
    weights = (1.0,) * len(tips)

    def tiles() -> list[Tile]:
        cuts = [slice(start, start + size) for start in range(0, max(1, len(base)), size)]
        return [Tile(tuple(tip[cut] for tip in tips), weights, base[cut], cut.start) for cut in cuts]

    return Sides("w", tuple(base.shape), weights, tiles, has_base=True)


def merged(strategy: Strategy, base: Any, tips: list[Any], size: int = 1 << 16) -> Any:
    parameter = sides(base, tips, size)
    measures = strategy.measure(parameter, strategy.survey([parameter]))
    return np.concatenate([strategy.combine(tile, measures) for tile in parameter.tiles()])


def reference(base: Any, tips: list[Any], scales: Any, epsilon: float = 1e-5) -> Any:
    """Element by element."""
    result = base.copy()
    for place in range(len(base)):
        active = [(tip[place] - base[place], s) for tip, s in zip(tips, scales, strict=True)]
        active = [(delta, scale) for delta, scale in active if abs(delta) > epsilon]
        if len(active) == 1:
            result[place] += active[0][0] * active[0][1]
        elif active:
            result[place] += sum(delta for delta, _ in active) / len(active)
    return result


def ratios(base: Any, tips: list[Any]) -> list[float]:
    changed = np.array([abs(tip - base) > 1e-5 for tip in tips])
    count = changed.sum(0)
    return [(own & (count > 1)).sum() / (own & (count == 1)).sum() for own in changed]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_ram(count: int) -> None:
    base, tips = made(count)
    found = merged(Ram(), base, tips)
    np.testing.assert_allclose(found, reference(base, tips, [1.0] * count), rtol=1e-12, atol=1e-14)
    for tip in tips:
        alone = (tip != base) & (sum(other != base for other in tips) == 1)
        assert (found[alone] == tip[alone]).all()
    untouched = sum(tip != base for tip in tips) == 0
    assert (found[untouched] == base[untouched]).all()


@pytest.mark.parametrize("alpha", [0.0, 0.2, 5.0])
@pytest.mark.parametrize("strategy", [RamPlus, RamPlusModel])
def test_ram_plus(alpha: float, strategy: type[RamPlus]) -> None:
    base, tips = made()
    scales = [1 + 0.7 * min(ratio, alpha) for ratio in ratios(base, tips)]
    found = merged(strategy(r=0.7, alpha=alpha), base, tips)
    np.testing.assert_allclose(found, reference(base, tips, scales), rtol=1e-12, atol=1e-13)


def test_ratios_of_the_whole_model() -> None:
    first, second = made(density=0.1), made(density=0.7)
    strategy = RamPlusModel(alpha=9)
    model = strategy.survey([sides(*first), sides(*second)])
    joined = [np.concatenate(pair) for pair in zip(first[1], second[1], strict=True)]
    expected = [1 + 0.1 * ratio for ratio in ratios(np.concatenate([first[0], second[0]]), joined)]
    np.testing.assert_allclose(model["scales"], expected, rtol=1e-15)
    assert strategy.measure(sides(*first), model) == model
    assert RamPlus().survey([sides(*first)]) == {}
    with pytest.raises(ThetaError, match="all models"):
        strategy.measure(sides(first[0], first[1][:2]), model)


def test_nothing_unique() -> None:
    base, (a,) = made(1)
    for strategy in ALL:
        np.testing.assert_allclose(merged(strategy, base, [a, a, a]), a, rtol=1e-15, atol=1e-15)
        assert (merged(strategy, base, [base, base]) == base).all()
        assert (merged(strategy, base, [a]) == a).all()


def test_small_changes_count_as_none() -> None:
    base = np.zeros(3)
    tips = [np.array([1e-5, 2e-5, 1.0]), np.array([0.0, 0.0, 3.0])]
    assert merged(Ram(), base, tips).tolist() == [0, 2e-5, 2]
    assert merged(Ram(epsilon=0), base, tips).tolist() == [1e-5, 2e-5, 2]


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("size", [1, 7])
def test_tiles_of_any_size(strategy: Strategy, size: int) -> None:
    base, tips = made(64, density=0.02)
    assert (merged(strategy, base, tips, size) == merged(strategy, base, tips)).all()
    assert merged(strategy, base[:0], [tip[:0] for tip in tips]).shape == (0,)


@pytest.mark.parametrize("strategy", ALL)
def test_any_order_of_models(strategy: Strategy) -> None:
    base, tips = made()
    expected = merged(strategy, base, tips)
    for order in permutations(tips):
        np.testing.assert_allclose(merged(strategy, base, list(order)), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_is(strategy: Strategy, strange: float) -> None:
    base, tips = made()
    tips[1][5] = strange
    assert np.flatnonzero(~np.isfinite(merged(strategy, base, tips))).tolist() == [5]


@pytest.mark.parametrize("strategy", ALL)
def test_torch_computes_the_same_bits(strategy: Strategy) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made()
    parameter = sides(torch.from_numpy(base), [torch.from_numpy(tip) for tip in tips])
    measures = strategy.measure(parameter, strategy.survey([parameter]))
    (tile,) = parameter.tiles()
    assert strategy.combine(tile, measures).numpy().tobytes() == merged(strategy, base, tips).tobytes()

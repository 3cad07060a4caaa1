"""Take, linear, passthrough and task arithmetic: what needs no look at the parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Sides, Strategy, Tile
from git_theta_btm.merges.linear import WeightedSum
from git_theta_btm.merges.passthrough import Passthrough
from git_theta_btm.merges.take import Base, Ours, Theirs
from git_theta_btm.merges.task_arithmetic import TaskArithmetic

WEIGHTS = st.lists(st.floats(-4, 4), min_size=1, max_size=6).map(tuple)
COMPUTED: list[Strategy] = [
    WeightedSum(),
    WeightedSum(normalize=False),
    TaskArithmetic(),
    TaskArithmetic(lambda_=0.3, normalize=True),
]


def made(count: int, size: int = 33) -> tuple[Any, list[Any]]:
    random = np.random.default_rng(5)
    base = random.standard_normal(size)
    return base, [base + 0.1 * random.standard_normal(size) for _ in range(count)]


def merged(strategy: Strategy, base: Any, tips: list[Any], weights: tuple[float, ...] = (), size: int = 0) -> Any:
    """A parameter merged by tiles of some size; it is measured as one tile."""
    weights, size = weights or (1.0,) * len(tips), size or max(1, len(base))
    whole = Tile(tuple(tips), weights, base)
    measures = strategy.measure(Sides("w", (len(base),), weights, lambda: [whole], has_base=True), {})
    parts = []
    for start in range(0, max(1, len(base)), size):
        cut = slice(start, start + size)
        parts.append(strategy.combine(Tile(tuple(tip[cut] for tip in tips), weights, base[cut], start), measures))
    return np.concatenate(parts)


def test_what_is_taken() -> None:
    assert [Ours().choice(count) for count in (1, 2, 64)] == [0, 0, 0]
    assert Theirs().choice(2) == 1
    assert Base().choice(3) == -1
    assert (Theirs.least, Theirs.most) == (2, 2)
    assert Base.needs_base
    assert not Base.idempotent
    assert Ours.ordered
    assert Theirs.ordered


@given(WEIGHTS)
@settings(deadline=None, max_examples=100)
def test_the_formulas(weights: tuple[float, ...]) -> None:
    base, tips = made(len(weights))
    summed = sum(w * tip for w, tip in zip(weights, tips, strict=True))
    changes = sum(w * (tip - base) for w, tip in zip(weights, tips, strict=True))
    close: Any = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(merged(WeightedSum(normalize=False), base, tips, weights), summed, **close)
    np.testing.assert_allclose(merged(TaskArithmetic(lambda_=0.4), base, tips, weights), base + 0.4 * changes, **close)
    if abs(total := sum(weights)) > 1e-3:
        close = {"rtol": 1e-9, "atol": 1e-9}
        np.testing.assert_allclose(merged(WeightedSum(), base, tips, weights), summed / total, **close)
        shared = TaskArithmetic(lambda_=0.4, normalize=True)
        np.testing.assert_allclose(merged(shared, base, tips, weights), base + 0.4 * changes / total, **close)


def test_a_weight_of_one_gives_the_model_back() -> None:
    base, tips = made(3)
    for strategy in (WeightedSum(), WeightedSum(normalize=False), TaskArithmetic(), Passthrough()):
        assert (merged(strategy, base, tips[:1]) == tips[0]).all()
    assert (merged(WeightedSum(), base, tips, (0.0, 5.0, 0.0)) == tips[1] * 5 / 5).all()
    assert (merged(TaskArithmetic(), base, tips, (0.0, 1.0, 0.0)) == tips[1]).all()


def test_a_sum_of_weights_of_one_needs_no_base() -> None:
    base, tips = made(2)
    base[0] = np.nan
    assert np.isfinite(merged(TaskArithmetic(normalize=True), base, tips, (3.0, 1.0))).all()


def test_a_scale() -> None:
    base, tips = made(1)
    assert (merged(Passthrough(scale=-0.3), base, tips) == tips[0] * -0.3).all()
    assert (merged(Passthrough(scale=0), base, tips) == 0).all()
    assert (Passthrough().choice(1), Passthrough(scale=2).choice(1), Passthrough.most) == (0, None, 1)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0)])
@pytest.mark.parametrize("strategy", [WeightedSum(), TaskArithmetic(normalize=True)])
def test_weights_that_cannot_be_normalised(strategy: Strategy, weights: tuple[float, ...]) -> None:
    base, tips = made(2)
    with pytest.raises(ThetaError, match="sum to 0"):
        merged(strategy, base, tips, weights)


def test_weights_that_sum_to_nothing_but_need_not_be_normalised() -> None:
    base, tips = made(2)
    expected = tips[0] - tips[1]
    assert (merged(WeightedSum(normalize=False), base, tips, (1.0, -1.0)) == expected).all()
    np.testing.assert_allclose(merged(TaskArithmetic(), base, tips, (1.0, -1.0)), base + expected, atol=1e-15)


@pytest.mark.parametrize("strategy", COMPUTED)
@pytest.mark.parametrize("size", [1, 7])
def test_tiles_of_any_size(strategy: Strategy, size: int) -> None:
    base, tips = made(64)
    expected = merged(strategy, base, tips)
    assert merged(strategy, base, tips, size=size).tobytes() == expected.tobytes()
    assert merged(strategy, base[:0], [tip[:0] for tip in tips]).shape == (0,)


@pytest.mark.parametrize("strategy", COMPUTED)
def test_what_is_not_finite_stays_where_it_is(strategy: Strategy) -> None:
    base, tips = made(2)
    tips[0][3], tips[1][4] = np.nan, np.inf
    assert np.flatnonzero(~np.isfinite(merged(strategy, base, tips))).tolist() == [3, 4]


@pytest.mark.parametrize("strategy", COMPUTED)
def test_torch_computes_the_same_bits(strategy: Strategy) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made(3)
    weights = (0.3, 0.5, -0.1)
    tile = Tile(tuple(map(torch.from_numpy, tips)), weights, torch.from_numpy(base))
    sides = Sides("w", (33,), weights, lambda: [tile], has_base=True)
    found = strategy.combine(tile, strategy.measure(sides, {}))
    assert found.numpy().tobytes() == merged(strategy, base, tips, weights).tobytes()

"""Iso-C: the spectrum of the merged task vector is flat, and its directions are those of the sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Sides, Tile
from git_theta_btm.merges.iso_c import IsoC


def made(count: int = 3, shape: tuple[int, ...] = (8, 5)) -> tuple[Any, list[Any]]:
    random = np.random.default_rng(3)
    base = random.standard_normal(shape)
    return base, [base + 0.1 * random.standard_normal(shape) for _ in range(count)]


def merged(strategy: IsoC, base: Any, tips: list[Any], weights: tuple[float, ...] = ()) -> Any:
    weights = weights or (1.0,) * len(tips)
    tile = Tile(tuple(tips), weights, base)
    parameter = Sides("layer.weight", tuple(base.shape), weights, lambda: [tile], has_base=True)
    return strategy.combine(tile, strategy.measure(parameter, {}))


def reference(base: Any, tips: list[Any], weights: tuple[float, ...], scale: float) -> Any:
    summed = len(tips) * sum(w * (tip - base) for w, tip in zip(weights, tips, strict=True)) / sum(weights)
    left, values, right = np.linalg.svd(summed, full_matrices=False)
    return base + scale * values.mean() * left @ right


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6), (1, 4)])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 0.1), (2.0, -0.5, 1.0)])
def test_the_formula(shape: tuple[int, ...], weights: tuple[float, ...]) -> None:
    base, tips = made(shape=shape)
    result = merged(IsoC(lambda_=0.7), base, tips, weights)
    np.testing.assert_allclose(result, reference(base, tips, weights, 0.7), rtol=1e-9, atol=1e-12)


def test_all_singular_values_are_the_mean_of_those_of_the_sum() -> None:
    base, tips = made()
    summed = np.linalg.svd(sum(tips) - 3 * base, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(merged(IsoC(), base, tips) - base, compute_uv=False), summed.mean())


def test_weights_are_shares() -> None:
    base, tips = made()
    np.testing.assert_allclose(
        merged(IsoC(), base, tips, (1 / 3,) * 3), merged(IsoC(), base, tips, (1.0,) * 3), rtol=1e-12
    )
    np.testing.assert_allclose(
        merged(IsoC(), base, tips, (1.0, 0.0, 1.0)), merged(IsoC(), base, [tips[0], tips[2]]), rtol=1e-12
    )


def test_updates_of_low_rank_stay_in_their_own_directions() -> None:
    base, _ = made(shape=(8, 6))
    random = np.random.default_rng(4)
    deltas = [random.standard_normal((8, 1)) @ random.standard_normal((1, 6)) for _ in range(2)]
    delta = merged(IsoC(), base, [base + item for item in deltas]) - base
    assert np.linalg.matrix_rank(delta, tol=1e-9) == 2
    summed = np.linalg.svd(sum(deltas), compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(delta, compute_uv=False)[:2], summed.sum() / 2)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (2, 3, 4)])
def test_what_is_no_matrix_gets_the_mean_of_the_task_vectors(shape: tuple[int, ...]) -> None:
    base, tips = made(shape=shape)
    expected = base + 0.5 * (np.mean(tips, axis=0) - base)
    np.testing.assert_allclose(merged(IsoC(lambda_=0.5), base, tips), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (3, 3)])
def test_where_nobody_moved_it_is_the_base(shape: tuple[int, ...]) -> None:
    base, _ = made(shape=shape)
    np.testing.assert_array_equal(merged(IsoC(), base, [base, base]), base)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_do_not_crash(bad: float) -> None:
    base, tips = made()
    tips[1][2, 3] = bad
    result = merged(IsoC(), base, tips)
    assert not np.isfinite(result[2, 3])
    assert np.isfinite(merged(IsoC(), base, tips, (1.0, 0.0, 1.0))).all()


def test_shares_of_nothing() -> None:
    base, tips = made(2)
    with pytest.raises(ThetaError, match="sum to 0"):
        merged(IsoC(), base, tips, (1.0, -1.0))


def test_many_tips_and_one() -> None:
    base, tips = made(64)
    np.testing.assert_allclose(merged(IsoC(), base, tips), reference(base, tips, (1.0,) * 64, 1.0), rtol=1e-9)
    np.testing.assert_allclose(merged(IsoC(), base, tips[:1]), reference(base, tips[:1], (1.0,), 1.0), rtol=1e-9)


def test_torch_gives_the_same_numbers() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made()
    result = merged(IsoC(), torch.from_numpy(base), [torch.from_numpy(tip) for tip in tips])
    np.testing.assert_allclose(result.numpy(), merged(IsoC(), base, tips), rtol=1e-10, atol=1e-12)

"""RegMean against the least squares that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Sides, Tile
from git_theta_btm.merges.regmean import RegMean

INPUTS, OUTPUTS = 12, 5


def made(count: int = 3, tokens: int = 40) -> tuple[list[Any], list[Any], list[Any]]:
    """Weights, the inputs that each was trained on, and their Gram matrices."""
    random = np.random.default_rng(2)
    weights = [random.standard_normal((OUTPUTS, INPUTS)) for _ in range(count)]
    inputs = [random.standard_normal((tokens, INPUTS)) * (1 + place) for place in range(count)]
    return weights, inputs, [x.T @ x / tokens for x in inputs]


def merged(strategy: RegMean, tips: list[Any], grams: list[Any], weights: tuple[float, ...] = ()) -> Any:
    weights = weights or (1.0,) * len(tips)
    tile = Tile(tuple(tips), weights, statistics=tuple(grams))
    parameter = Sides("layer.weight", tuple(tips[0].shape), weights, lambda: [tile])
    return strategy.combine(tile, strategy.measure(parameter, {}))


def reference(tips: list[Any], grams: list[Any], weights: tuple[float, ...], alpha: float) -> Any:
    reduced = [alpha * gram + (1 - alpha) * np.diag(np.diag(gram)) for gram in grams]
    left = sum(w * gram for w, gram in zip(weights, reduced, strict=True))
    right = sum(w * gram @ tip.T for w, gram, tip in zip(weights, reduced, tips, strict=True))
    return np.linalg.solve(left, right).T


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 0.1)])
@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_the_formula(alpha: float, weights: tuple[float, ...]) -> None:
    tips, _, grams = made()
    result = merged(RegMean(alpha=alpha, ridge=0.0), tips, grams, weights)
    np.testing.assert_allclose(result, reference(tips, grams, weights, alpha), rtol=1e-9)


def test_no_layer_answers_more_nearly_as_the_experts_do() -> None:
    tips, inputs, grams = made()
    result = merged(RegMean(alpha=1.0, ridge=0.0), tips, grams)

    def loss(layer: Any) -> float:
        return sum(float(np.sum((x @ layer.T - x @ tip.T) ** 2)) for x, tip in zip(inputs, tips, strict=True))

    for seed in range(20):
        assert loss(result) < loss(result + 1e-3 * np.random.default_rng(seed).standard_normal(result.shape))
    assert loss(result) < 0.9 * loss(np.mean(tips, axis=0))


def test_the_small_ridge_hardly_shows() -> None:
    tips, _, grams = made()
    np.testing.assert_allclose(merged(RegMean(), tips, grams), reference(tips, grams, (1.0,) * 3, 0.9), rtol=1e-3)


def test_fewer_tokens_than_inputs_need_a_ridge() -> None:
    tips, _, grams = made(2, tokens=4)
    assert np.isfinite(merged(RegMean(alpha=1.0), tips, grams)).all()
    dead = [np.diag([1.0] + [0.0] * (INPUTS - 1))] * 2
    with pytest.raises(ThetaError, match="singular"):
        merged(RegMean(alpha=1.0, ridge=0.0), tips, dead)


def test_where_no_input_ever_came_it_is_the_mean() -> None:
    tips, _, grams = made(2)
    zeros = [np.zeros_like(gram) for gram in grams]
    np.testing.assert_array_equal(merged(RegMean(), tips, zeros, (1.0, 3.0)), (tips[0] + 3 * tips[1]) / 4)


def test_equal_experts_are_kept_to_the_last_bit() -> None:
    tips, _, grams = made(4)
    np.testing.assert_array_equal(merged(RegMean(), [tips[0]] * 4, grams, (0.25,) * 4), tips[0])


def test_weights_of_gpt_2_lie_the_other_way() -> None:
    tips, _, grams = made()
    straight = merged(RegMean(), tips, grams)
    turned = merged(RegMean(transposed=True), [tip.T for tip in tips], grams)
    np.testing.assert_allclose(turned.T, straight, rtol=1e-12)


@pytest.mark.parametrize("grams", [[], [None, None]])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 3, 4)])
def test_without_statistics_it_is_the_mean(shape: tuple[int, ...], grams: list[Any]) -> None:
    tips = [np.full(shape, 1.0), np.full(shape, 4.0)]
    np.testing.assert_array_equal(merged(RegMean(), tips, grams, (1.0, 0.5)), np.full(shape, 2.0))


@pytest.mark.parametrize("shape", [(INPUTS,), (OUTPUTS, 3), (2, 3, INPUTS)])
def test_a_gram_matrix_that_does_not_fit(shape: tuple[int, ...]) -> None:
    _, _, grams = made(2)
    with pytest.raises(ThetaError, match=r"Gram matrix \[12,12\] does not fit"):
        merged(RegMean(), [np.ones(shape)] * 2, grams)


@pytest.mark.parametrize("weights", [(1.0, -0.5), (0.0, 0.0)])
def test_weights_that_are_no_shares(weights: tuple[float, ...]) -> None:
    tips, _, grams = made(2)
    with pytest.raises(ThetaError, match="at least 0"):
        merged(RegMean(), tips, grams, weights)


def test_nan_does_not_crash() -> None:
    tips, _, grams = made(2)
    tips[0][1, 1] = np.nan
    result = merged(RegMean(), tips, grams)
    assert np.isnan(result[1]).all(), "a row is solved as one"
    assert np.isfinite(np.delete(result, 1, axis=0)).all()
    assert np.isfinite(merged(RegMean(), tips, grams, (0.0, 1.0))).all()


def test_torch_gives_the_same_numbers() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    tips, _, grams = made()
    result = merged(RegMean(), [torch.from_numpy(tip) for tip in tips], [torch.from_numpy(gram) for gram in grams])
    np.testing.assert_allclose(result.numpy(), merged(RegMean(), tips, grams), rtol=1e-10)
    dead = [torch.zeros(INPUTS, INPUTS, dtype=torch.float64) for _ in range(3)]
    for gram in dead:
        gram[0, 0] = 1
    with pytest.raises(ThetaError, match="singular"):
        merged(RegMean(alpha=1.0, ridge=0.0), [torch.from_numpy(tip) for tip in tips], dead)

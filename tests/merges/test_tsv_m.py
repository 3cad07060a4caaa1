"""TSV-M against the formula, and what it promises of experts whose directions overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Sides, Tile
from git_theta_btm.merges.tsv_m import TsvM


def made(count: int = 3, shape: tuple[int, ...] = (8, 6)) -> tuple[Any, list[Any]]:
    random = np.random.default_rng(5)
    base = random.standard_normal(shape)
    return base, [base + 0.1 * random.standard_normal(shape) for _ in range(count)]


def merged(strategy: TsvM, base: Any, tips: list[Any], weights: tuple[float, ...] = ()) -> Any:
    weights = weights or (1.0,) * len(tips)
    tile = Tile(tuple(tips), weights, base)
    parameter = Sides("layer.weight", tuple(base.shape), weights, lambda: [tile], has_base=True)
    return strategy.combine(tile, strategy.measure(parameter, {}))


def reference(base: Any, tips: list[Any], weights: tuple[float, ...]) -> Any:
    """The paper's algorithm for matrices with no fewer rows or columns than experts."""
    kept = min(base.shape) // len(tips)
    parts = [np.linalg.svd(tip - base, full_matrices=False) for tip in tips]
    left = np.hstack([u[:, :kept] for u, _, _ in parts])
    right = np.vstack([v[:kept] for _, _, v in parts])
    shares = [w * len(tips) / sum(weights) for w in weights]
    values = np.concatenate([w * s[:kept] for w, (_, s, _) in zip(shares, parts, strict=True)])
    for_left, for_right = (np.linalg.svd(item, full_matrices=False) for item in (left, right))
    return base + (for_left[0] @ for_left[2]) @ np.diag(values) @ (for_right[0] @ for_right[2])


@pytest.mark.parametrize("shape", [(8, 6), (6, 8), (7, 7), (3, 9)])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 0.1), (2.0, -0.5, 1.0)])
def test_the_formula(shape: tuple[int, ...], weights: tuple[float, ...]) -> None:
    base, tips = made(shape=shape)
    result = merged(TsvM(), base, tips, weights)
    np.testing.assert_allclose(result, reference(base, tips, weights), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(merged(TsvM(lambda_=0.3), base, tips, weights), base + 0.3 * (result - base), rtol=1e-9)


def test_experts_that_do_not_overlap_are_added_up() -> None:
    base = np.zeros((6, 6))
    directions = np.linalg.qr(np.random.default_rng(6).standard_normal((6, 6)))[0]
    tips = [(3.0 - place) * np.outer(directions[:, place], directions[:, 2 + place]) for place in range(2)]
    np.testing.assert_allclose(merged(TsvM(), base, tips), tips[0] + tips[1], atol=1e-14)


def test_experts_that_overlap_keep_their_singular_values() -> None:
    base, tips = made(2, (9, 9))
    strongest = [np.linalg.svd(tip - base, compute_uv=False)[:4] for tip in tips]
    values = np.linalg.svd(merged(TsvM(), base, tips) - base, compute_uv=False)
    np.testing.assert_allclose(values[:8], np.sort(np.concatenate(strongest))[::-1], rtol=1e-9)


def test_one_expert_comes_back() -> None:
    base, tips = made(1)
    np.testing.assert_allclose(merged(TsvM(), base, tips), tips[0], rtol=1e-12)


def test_a_weight_of_nothing_leaves_an_expert_out() -> None:
    base, tips = made(3)
    without = merged(TsvM(), base, [tips[0], tips[2]])
    np.testing.assert_allclose(merged(TsvM(), base, tips, (0.5, 0.0, 0.5)), without, rtol=1e-12)


def test_an_expert_that_did_not_move_disturbs_nobody() -> None:
    base, tips = made(2)
    still = merged(TsvM(), base, [tips[0], base])
    kept = np.linalg.svd(tips[0] - base, full_matrices=False)
    expected = base + (kept[0][:, :3] * kept[1][:3]) @ kept[2][:3]
    np.testing.assert_allclose(still, expected, rtol=1e-9, atol=1e-12)


def test_more_experts_than_directions() -> None:
    base, tips = made(64, (3, 5))
    result = merged(TsvM(), base, tips)
    assert np.isfinite(result).all()
    assert not np.array_equal(result, base)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (2, 3, 4)])
def test_what_is_no_matrix_gets_the_mean_of_the_task_vectors(shape: tuple[int, ...]) -> None:
    base, tips = made(shape=shape)
    expected = base + 0.5 * (np.mean(tips, axis=0) - base)
    np.testing.assert_allclose(merged(TsvM(lambda_=0.5), base, tips), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (3, 3)])
def test_where_nobody_moved_it_is_the_base(shape: tuple[int, ...]) -> None:
    base, _ = made(shape=shape)
    np.testing.assert_array_equal(merged(TsvM(), base, [base, base]), base)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_do_not_crash(bad: float) -> None:
    base, tips = made()
    tips[1][2, 3] = bad
    assert not np.isfinite(merged(TsvM(), base, tips)[2, 3])
    assert np.isfinite(merged(TsvM(), base, tips, (1.0, 0.0, 1.0))).all()


def test_shares_of_nothing() -> None:
    base, tips = made(2)
    with pytest.raises(ThetaError, match="sum to 0"):
        merged(TsvM(), base, tips, (1.0, -1.0))


def test_torch_gives_the_same_numbers() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made()
    result = merged(TsvM(), torch.from_numpy(base), [torch.from_numpy(tip) for tip in tips])
    np.testing.assert_allclose(result.numpy(), merged(TsvM(), base, tips), rtol=1e-10, atol=1e-12)

"""DELLA: its chances row by row, and the merge of what it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiling import CHECKS, made, merged, sides

from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.maths.chance import key, uniform
from git_theta_btm.merges.della import Della, DellaLinear

BOTH = pytest.mark.parametrize("kind", [Della, DellaLinear])


def chances(delta: Any, density: float, epsilon: float) -> Any:
    """What each element of a matrix is kept by, row by row."""
    result = np.full(delta.shape, density)
    for row, kept in zip(np.abs(delta), result, strict=True):
        if row.size > 1:
            kept[np.argsort(row, kind="stable")] = np.linspace(density - epsilon, density + epsilon, row.size)
    return result


def dropped(tips: list[Any], base: Any, density: float, epsilon: float) -> list[Any]:
    """The task vectors after the draw, each element divided by its chance."""
    deltas = []
    for place, tip in enumerate(tips):
        numbers = uniform(key("0", key("w", str(place)).hex()), 0, base.size).reshape(base.shape)
        chance = chances(tip - base, density, epsilon)
        deltas.append(np.where(numbers < chance, (tip - base) / chance, 0))
    return deltas


@pytest.mark.parametrize("shape", [(40, 25), (4, 1), (1, 90), (200, 700)])
def test_the_sum(shape: tuple[int, ...]) -> None:
    base, tips = made(2, shape)
    expected = base + 0.5 * (dropped(tips, base, 0.4, 0.2)[0] - 2 * dropped(tips, base, 0.4, 0.2)[1])
    found = merged(DellaLinear(density=(0.4,), epsilon=(0.2,), lambda_=0.5), base, tips, (1.0, -2.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_the_elected_mean() -> None:
    base, tips = made(3)
    deltas = np.stack(dropped(tips, base, 0.5, 0.15))
    agree = deltas * np.where(deltas.sum(axis=0) >= 0, 1, -1) > 0
    mean = np.where(agree, deltas, 0).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)
    np.testing.assert_allclose(merged(Della(), base, tips), base + mean, rtol=0, atol=1e-13)


def test_rows_are_those_of_the_last_dimension() -> None:
    base, tips = made(2, (3, 4, 50))
    strategy = DellaLinear()
    flat = [array.reshape(12, 50) for array in (base, *tips)]
    np.testing.assert_array_equal(merged(strategy, base, tips).reshape(12, 50), merged(strategy, flat[0], flat[1:]))


def test_large_changes_are_kept_more_often() -> None:
    base, tip = np.zeros((400, 500)), np.tile(np.arange(1.0, 501.0), (400, 1))
    kept = merged(DellaLinear(density=(0.5,), epsilon=(0.4,), rescale="none"), base, [tip]) != 0
    assert kept[:, :50].mean() == pytest.approx(0.14, abs=0.02)
    assert kept[:, -50:].mean() == pytest.approx(0.86, abs=0.02)
    assert kept.mean() == pytest.approx(0.5, abs=0.01)


@BOTH
def test_the_norm_is_kept(kind: Any) -> None:
    base, (tip,) = made(1, (300, 300))
    found = merged(kind(rescale="l1"), base, [tip]) - base
    assert np.abs(found).sum() == pytest.approx(np.abs(tip - base).sum())


@BOTH
def test_extremes(kind: Any) -> None:
    base, tips = made(1)
    np.testing.assert_array_equal(merged(kind(density=(0.0,)), base, tips), base)
    np.testing.assert_array_equal(merged(kind(density=(1.0,)), base, tips), tips[0])


@BOTH
@CHECKS
@pytest.mark.parametrize("rescale", ["expectation", "l1"])
def test_promises(check: Any, kind: Any, rescale: str) -> None:
    check(kind(rescale=rescale))


def test_no_answer() -> None:
    base, tips = made(2)
    for density, epsilon in ((0.1, 0.15), (0.15, 0.15), (0.9, 0.15)):
        with pytest.raises(UsageError, match="no room"):
            merged(Della(density=(density,), epsilon=(epsilon,)), base, tips)
    with pytest.raises(ThetaError, match="sum to 0"):
        DellaLinear(normalize=True).measure(sides(base, tips, (1.0, -1.0), 0), {})

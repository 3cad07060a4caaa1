"""DARE against its formula, and what its masks depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiling import CHECKS, made, merged, sides

from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.maths.chance import key, uniform
from git_theta_btm.merges.dare import DareLinear, DareTies

BOTH = pytest.mark.parametrize("kind", [DareLinear, DareTies])


def dropped(tips: list[Any], base: Any, density: float, seed: int) -> list[Any]:
    """The task vectors after the draw, not rescaled."""
    keys = [key(str(seed), key("w", str(place)).hex()) for place in range(len(tips))]
    kept = [uniform(each, 0, base.size).reshape(base.shape) < density for each in keys]
    return [np.where(mask, tip - base, 0) for mask, tip in zip(kept, tips, strict=True)]


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_the_sum(density: float) -> None:
    base, tips = made(3)
    weights = (1.0, -0.5, 2.0)
    total = sum(w * delta / density for w, delta in zip(weights, dropped(tips, base, density, 7), strict=True))
    found = merged(DareLinear(density=(density,), seed=7, lambda_=0.5), base, tips, weights)
    np.testing.assert_allclose(found, base + 0.5 * total, rtol=0, atol=1e-13)
    found = merged(DareLinear(density=(density,), seed=7, normalize=True), base, tips, weights)
    np.testing.assert_allclose(found, base + total / 2.5, rtol=0, atol=1e-13)


def test_the_elected_sum() -> None:
    base, tips = made(3)
    deltas = np.stack(dropped(tips, base, 0.5, 0)) * 2
    agree = deltas * np.where(deltas.sum(axis=0) >= 0, 1, -1) > 0
    total = np.where(agree, deltas, 0).sum(axis=0)
    np.testing.assert_allclose(merged(DareTies(), base, tips), base + total, rtol=0, atol=1e-13)
    mean = total / np.maximum(agree.sum(axis=0), 1)
    np.testing.assert_allclose(merged(DareTies(normalize=True), base, tips), base + mean, rtol=0, atol=1e-13)


@BOTH
def test_the_norm_is_kept(kind: Any) -> None:
    base, (tip,) = made(1, (300, 300))
    found = merged(kind(density=(0.2,), rescale="l1"), base, [tip]) - base
    assert np.abs(found).sum() == pytest.approx(np.abs(tip - base).sum())
    kept = np.count_nonzero(found) / np.count_nonzero(tip - base)
    assert kept == pytest.approx(0.2, abs=0.01)


def test_the_expectation_is_kept() -> None:
    base, tip = np.zeros(40_000), np.ones(40_000)
    found = merged(DareLinear(density=(0.25,)), base, [tip])
    assert set(found.tolist()) == {0.0, 4.0}
    assert found.mean() == pytest.approx(1.0, abs=0.04)
    assert set(merged(DareLinear(density=(0.25,), rescale="none"), base, [tip]).tolist()) == {0.0, 1.0}


@BOTH
def test_extremes(kind: Any) -> None:
    base, tips = made(1)
    for rescale in ("expectation", "l1", "none"):
        np.testing.assert_array_equal(merged(kind(density=(0.0,), rescale=rescale), base, tips), base)
        np.testing.assert_array_equal(merged(kind(density=(1.0,), rescale=rescale), base, tips), tips[0])


def test_masks_depend_on_the_seed_and_the_tip() -> None:
    base = np.zeros(1000)
    tip = np.ones(1000)
    seeds = [merged(DareLinear(seed=seed), base, [tip]) for seed in (0, 1)]
    assert (seeds[0] != seeds[1]).any()
    assert set(merged(DareLinear(), base, [tip, tip]).tolist()) == {0.0, 2.0, 4.0}  # two masks, not one


@BOTH
@CHECKS
@pytest.mark.parametrize("rescale", ["expectation", "l1"])
def test_promises(check: Any, kind: Any, rescale: str) -> None:
    check(kind(rescale=rescale))


def test_no_answer() -> None:
    base, tips = made(2)
    with pytest.raises(ThetaError, match="sum to 0"):
        DareLinear(normalize=True).measure(sides(base, tips, (1.0, -1.0), 9), {})
    assert np.isfinite(merged(DareTies(normalize=True), base, tips, (1.0, -1.0))).all()
    with pytest.raises(UsageError):
        DareLinear(rescale="l2")

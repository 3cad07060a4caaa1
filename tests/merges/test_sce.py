"""SCE against its formula: select, calculate, erase."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiling import CHECKS, made, measured, merged, sides

from git_theta_btm.merges.sce import Sce


def reference(base: Any, tips: list[Any], weights: tuple[float, ...], topk: float) -> Any:
    deltas, factors = np.stack([tip - base for tip in tips]), np.reshape(weights, (-1,) + (1,) * base.ndim)
    if topk < 1:
        variance = deltas.var(axis=0)
        variance[np.isclose(variance, 0)] = 0
        kept = int(topk * np.count_nonzero(variance))
        least = np.sort(variance, axis=None)[::-1][kept - 1]
        deltas *= variance >= least * (1 - 1e-9)
    axes = tuple(range(1, deltas.ndim))
    squares = factors * np.mean(deltas**2, axis=axes, keepdims=True)
    coefficients = squares / np.abs(squares).sum()
    agree = deltas * factors * np.where((deltas * factors).sum(axis=0) >= 0, 1, -1) > 0
    divisor = np.where(agree, np.abs(coefficients), 0).sum(axis=0)
    return base + np.where(agree, coefficients * deltas, 0).sum(axis=0) / np.where(divisor == 0, 1, divisor)


@pytest.mark.parametrize("topk", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0), (1.0, -1.0, 0.0)])
def test_the_formula(topk: float, weights: tuple[float, ...]) -> None:
    base, tips = made(3)
    expected = reference(base, tips, weights, topk)
    np.testing.assert_allclose(merged(Sce(select_topk=topk), base, tips, weights), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e-100])
def test_coefficients_do_not_depend_on_the_scale(scale: float) -> None:
    tips = [np.full(9, scale), np.full(9, 3 * scale)]
    measures = measured(Sce(), sides(np.zeros(9), tips, (1.0, 1.0), 9))
    assert measures["coefficients"] == pytest.approx((0.1, 0.9))


def test_only_what_differs_most_is_merged() -> None:
    base = np.zeros(6)
    tips = [np.asarray([1.0, 5.0, 2.0, 1.0, 0.0, 3.0]), np.asarray([1.0, 1.0, 2.1, 1.0, 0.0, 2.0])]
    changed = merged(Sce(select_topk=0.34), base, tips) != 0
    np.testing.assert_array_equal(changed, [False, True, False, False, False, False])
    assert not merged(Sce(select_topk=0.0), base, tips).any()
    assert not merged(Sce(select_topk=0.5), base, [tips[0] / 10] * 3).any()  # 0.1 is not the mean of 0.1, 0.1 and 0.1


def test_equal_tips() -> None:
    base, (tip,) = made(1)
    np.testing.assert_allclose(merged(Sce(), base, [tip, tip, tip]), tip, rtol=0, atol=1e-15)


@CHECKS
@pytest.mark.parametrize("topk", [0.3, 1.0])
def test_promises(check: Any, topk: float) -> None:
    check(Sce(select_topk=topk))

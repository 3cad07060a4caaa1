"""EMR's unified task vector against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiling import CHECKS, made, merged

from git_theta_btm.merges.emr import Emr


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 1.0), (1.0, 0.0, -1.0)])
def test_the_formula(weights: tuple[float, ...]) -> None:
    base, tips = made(3)
    deltas, factors = np.stack([tip - base for tip in tips]), np.reshape(weights, (-1, 1, 1))
    sign = np.where((deltas * factors).sum(axis=0) >= 0, 1, -1)
    greatest = np.where(deltas * factors * sign > 0, np.abs(deltas), 0).max(axis=0)
    np.testing.assert_array_equal(merged(Emr(), base, tips, weights), base + sign * greatest)


def test_an_example() -> None:
    tips = [np.asarray([3.0, 1.0, 0.0]), np.asarray([-1.0, -5.0, 0.0]), np.asarray([2.0, -1.0, 0.0])]
    np.testing.assert_array_equal(merged(Emr(), np.zeros(3), tips), [3.0, -5.0, 0.0])


def test_equal_tips() -> None:
    base, (tip,) = made(1)
    np.testing.assert_array_equal(merged(Emr(), base, [tip, tip, tip]), base + (tip - base))


def test_what_is_not_finite_stays() -> None:
    tips = [np.asarray([np.nan, np.inf, np.inf]), np.asarray([1.0, -2.0, -np.inf])]
    np.testing.assert_array_equal(merged(Emr(), np.zeros(3), tips), [np.nan, np.inf, np.inf])


@CHECKS
def test_promises(check: Any) -> None:
    check(Emr())

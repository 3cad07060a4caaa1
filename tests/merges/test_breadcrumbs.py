"""Breadcrumbs against its formula, with tensors of every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiling import CHECKS, made, merged, sides

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges.breadcrumbs import Breadcrumbs, BreadcrumbsTies

BOTH = pytest.mark.parametrize("kind", [Breadcrumbs, BreadcrumbsTies])
PART = st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 1.0])


def masked(delta: Any, density: float, gamma: float) -> Any:
    """What is left of a vector whose magnitudes all differ."""
    size = delta.size
    kept = max(1, int(density * size)) if density else 0
    outliers = min(int(gamma * size), size - kept)
    result = np.zeros(size)
    places = np.argsort(-np.abs(delta))[outliers : outliers + kept]
    result[places] = delta[places]
    return result


def distinct(count: int, size: int) -> tuple[Any, list[Any]]:
    random = np.random.default_rng(4)
    return np.zeros(size), [random.standard_normal(size) for _ in range(count)]


@given(PART, PART, st.sampled_from([1, 2, 5, 64, 300]))
@settings(deadline=None, max_examples=100)
def test_the_sum(density: float, gamma: float, size: int) -> None:
    base, tips = distinct(2, size)
    expected = 0.5 * (masked(tips[0], density, gamma) - 2 * masked(tips[1], density, gamma))
    found = merged(Breadcrumbs(density=(density,), gamma=(gamma,), lambda_=0.5), base, tips, (1.0, -2.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_elected_sum(normalize: bool) -> None:  # noqa: FBT001
    base, tips = distinct(3, 200)
    deltas = np.stack([masked(tip, 0.5, 0.1) for tip in tips])
    agree = deltas * np.where(deltas.sum(axis=0) >= 0, 1, -1) > 0
    total = np.where(agree, deltas, 0).sum(axis=0)
    expected = total / np.maximum(agree.sum(axis=0), 1) if normalize else total
    found = merged(BreadcrumbsTies(density=(0.5,), gamma=(0.1,), normalize=normalize), base, tips)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


@BOTH
def test_small_tensors_keep_their_changes(kind: Any) -> None:
    base, (tip,) = distinct(1, 64)
    assert np.count_nonzero(merged(kind(), base, [tip])) == 57
    base, (tip,) = distinct(1, 1)
    np.testing.assert_array_equal(merged(kind(), base, [tip]), tip)


def test_equal_magnitudes_have_one_fate() -> None:
    tip = np.asarray([9.0, 2.0, -2.0, 2.0, 1.0, -1.0, 0.5, 0.25, 0.125, 0.0])
    found = merged(Breadcrumbs(density=(0.4,), gamma=(0.2,)), np.zeros(10), [tip])
    np.testing.assert_array_equal(found, [0, 2, -2, 2, 1, -1, 0, 0, 0, 0])


def test_a_value_for_each_tip() -> None:
    base, tips = distinct(2, 100)
    found = merged(Breadcrumbs(density=(0.5, 0.1), gamma=(0.0, 0.3)), base, tips)
    np.testing.assert_allclose(found, masked(tips[0], 0.5, 0.0) + masked(tips[1], 0.1, 0.3), rtol=0, atol=1e-15)


@BOTH
@CHECKS
def test_promises(check: Any, kind: Any) -> None:
    check(kind())


def test_no_answer() -> None:
    base, tips = made(2)
    with pytest.raises(ThetaError, match="sum to 0"):
        Breadcrumbs(normalize=True).measure(sides(base, tips, (1.0, -1.0), 9), {})

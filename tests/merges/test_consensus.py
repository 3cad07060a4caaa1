"""Consensus merging against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiling import CHECKS, made, merged

from git_theta_btm.errors import UsageError
from git_theta_btm.merges.consensus import Consensus


@given(st.integers(1, 6), st.integers(0, 4), st.sampled_from([0.0, 0.2, 0.6, 2.0]))
@settings(deadline=None, max_examples=60)
def test_the_formula(count: int, k: int, tall_lambda: float) -> None:
    base, tips = made(count)
    deltas = [tip - base for tip in tips]
    tau = sum(deltas)
    votes = sum(np.abs(delta) > tall_lambda * np.abs(tau - delta) for delta in deltas)
    expected = base + 0.5 * np.where(votes >= min(k, count), tau, 0)
    found = merged(Consensus(k=k, tall_lambda=tall_lambda, alpha=0.5), base, tips)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_selfish_and_catastrophic_elements() -> None:
    base, tips = np.zeros(3), [np.asarray([1.0, 1.0, 0.1]), np.asarray([1.0, 0.0, 0.1]), np.asarray([0.0, 0.0, 0.1])]
    np.testing.assert_allclose(merged(Consensus(), base, tips), [2.0, 0.0, 0.0])
    np.testing.assert_allclose(merged(Consensus(k=1), base, tips), [2.0, 1.0, 0.0])
    np.testing.assert_allclose(merged(Consensus(k=0), base, tips), [2.0, 1.0, 0.3])


def test_weights() -> None:
    base, tips = np.zeros(2), [np.asarray([1.0, 1.0]), np.asarray([1.0, 1.0]), np.asarray([1.0, np.inf])]
    np.testing.assert_allclose(merged(Consensus(), base, tips, (0.5, 0.5, 0.0)), [1.0, 1.0])
    np.testing.assert_allclose(merged(Consensus(), base, tips[:1], (2.0,)), [2.0, 2.0])


def test_what_several_lack_is_lacking() -> None:
    base, tips = np.zeros(3), [np.asarray([np.nan, np.inf, np.inf]), np.asarray([1.0, np.inf, 1.0])]
    np.testing.assert_array_equal(merged(Consensus(), base, tips), [np.nan, np.inf, 0.0])


@CHECKS
def test_promises(check: Any) -> None:
    check(Consensus())


@pytest.mark.parametrize("options", [{"k": -1}, {"tall_lambda": -0.1}, {"alpha": float("nan")}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Consensus(**options)

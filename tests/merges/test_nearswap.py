"""NearSwap: every element moves towards the other model's, not further than t."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Tile
from git_theta_btm.merges.nearswap import NearSwap

PAIRS = arrays(np.float64, st.tuples(st.just(2), st.integers(0, 50)), elements=st.floats(-10, 10, width=32))


def merged(t: float, *tips: Any, base: Any = None) -> Any:
    return NearSwap(t=t).combine(Tile(tips, (1.0,) * len(tips), base), {})


@given(PAIRS, st.floats(1e-6, 3))
@settings(deadline=None, max_examples=200)
def test_the_formula(pair: Any, t: float) -> None:
    a, b = pair
    distance = abs(a - b)
    share = np.where(distance > t, t / np.where(distance > t, distance, 1), 1)
    found = merged(t, a, b)
    np.testing.assert_allclose(found, (1 - share) * a + share * b, rtol=1e-9, atol=1e-9)
    near = distance < t * (1 - 1e-9) - 1e-14
    assert (found[near] == b[near]).all()
    assert (merged(t, b, base=a) == found).all()
    assert (merged(t, a, b, base=a * 0) == found).all()


def test_the_ends() -> None:
    a, b = np.array([1.0, 2.0]), np.array([1.5, 2.0])
    assert (merged(10.0, a, b) == b).all()
    assert (merged(0.0, a, b) == a).all()
    assert [NearSwap(t=0).choice(count) for count in (1, 2)] == [-1, 0]
    assert NearSwap().choice(2) is None
    with pytest.raises(ThetaError, match="base"):
        merged(0.1, a)


def test_what_is_not_finite() -> None:
    a = np.array([-np.inf, np.nan, 1.0, 1.0, np.inf])
    b = np.array([-np.inf, 1.0, np.nan, np.inf, 1.0])
    np.testing.assert_array_equal(merged(0.5, a, b), [-np.inf, np.nan, np.nan, 1.5, np.inf])


def test_torch_computes_the_same_bits() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    a, b = np.random.default_rng(0).standard_normal((2, 100))
    a[3], b[4], b[5] = np.nan, np.nan, np.inf
    found = merged(0.1, torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_array_equal(found.numpy(), merged(0.1, a, b))  # whatever a NaN's sign

"""TIES against its formula, in NumPy on whole tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiling import CHECKS, made, merged, sides

from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.merges.ties import Ties


def reference(strategy: Ties, base: Any, tips: list[Any], weights: tuple[float, ...]) -> Any:
    """Trim, elect, disjoint mean."""
    deltas = np.stack([tip - base for tip in tips])
    densities = np.resize(strategy.density, len(tips))
    for delta, density in zip(deltas, densities, strict=True):
        kept = max(1, int(density * delta.size)) if density else 0
        least = np.sort(np.abs(delta), axis=None)[::-1][kept - 1] if kept else np.inf
        delta[np.abs(delta) < least] = 0
    factors = np.reshape(weights, (-1,) + (1,) * base.ndim)
    voters = np.sign(deltas * factors) if strategy.elect == "frequency" else deltas * factors
    sign = np.where(voters.sum(axis=0) >= 0, 1, -1)
    agree = deltas * factors * sign > 0
    total = np.where(agree, deltas * factors, 0).sum(axis=0)
    divisor = np.where(agree, np.abs(factors), 0).sum(axis=0) if strategy.normalize else 1.0
    return base + strategy.lambda_ * total / np.where(divisor == 0, 1, divisor)


WEIGHTS = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 1.0, 2.0]), min_size=1, max_size=5).map(tuple)


@given(WEIGHTS, st.sampled_from([0.0, 0.001, 0.2, 0.7, 1.0]), st.booleans(), st.sampled_from(["sum", "frequency"]))
@settings(deadline=None, max_examples=100)
def test_the_formula(weights: tuple[float, ...], density: float, normalize: bool, elect: str) -> None:  # noqa: FBT001
    base, tips = made(len(weights), (9, 11))
    strategy = Ties(density=(density,), normalize=normalize, elect=elect, lambda_=0.5)
    expected = reference(strategy, base, tips, weights)
    np.testing.assert_allclose(merged(strategy, base, tips, weights), expected, rtol=0, atol=1e-15)


@CHECKS
@pytest.mark.parametrize("options", [{}, {"density": (0.0,)}, {"density": (1.0,), "elect": "frequency"}])
def test_promises(check: Any, options: dict[str, Any]) -> None:
    check(Ties(**options))


def test_an_example() -> None:
    base, tips = np.zeros(4), [np.asarray([4.0, 1.0, -3.0, 0.1]), np.asarray([2.0, -5.0, -1.0, 0.2])]
    np.testing.assert_array_equal(merged(Ties(density=(0.5,)), base, tips), [3.0, -5.0, -3.0, 0.0])
    np.testing.assert_array_equal(merged(Ties(density=(0.5,), normalize=False), base, tips), [6.0, -5.0, -3.0, 0.0])
    np.testing.assert_array_equal(merged(Ties(density=(0.5, 0.25)), base, tips), [4.0, -5.0, -3.0, 0.0])


def test_equal_magnitudes_are_all_kept() -> None:
    tip = np.asarray([1.0, -1.0, 1.0, 0.5])
    np.testing.assert_array_equal(merged(Ties(density=(0.25,)), np.zeros(4), [tip]), [1.0, -1.0, 1.0, 0.0])


def test_what_is_not_finite_stays() -> None:
    base, tips = (
        np.zeros(5),
        [np.asarray([np.nan, np.inf, np.inf, 1.0, 0.0]), np.asarray([1.0, 2.0, -np.inf, 1.0, 0.0])],
    )
    np.testing.assert_array_equal(merged(Ties(density=(1.0,)), base, tips), [np.nan, np.inf, np.inf, 1.0, 0.0])


def test_trimming_the_whole_model() -> None:
    base, tips = made(2, (30,))
    small = [base + (tip - base) / 8 for tip in tips]
    weights, strategy = (1.0, 1.0), Ties(scope="model", density=(0.5,))
    model = [sides(base, tips, weights, 4), sides(base, small, weights, 7)]
    survey = strategy.survey(model)
    both = np.concatenate([base, base]), [np.concatenate(pair) for pair in zip(tips, small, strict=True)]
    expected = merged(Ties(density=(0.5,)), *both)
    found = [strategy.combine(tile, strategy.measure(each, survey)) for each in model for tile in each.tiles()]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert strategy.survey([]) == {}
    with pytest.raises(ThetaError, match="all models"):
        strategy.survey([*model, sides(base, tips[:1], (1.0,), 7)])


@pytest.mark.parametrize("options", [{"density": (1.1,)}, {"scope": "layer"}, {"elect": "most"}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Ties(**options)


def test_a_density_for_each_tip() -> None:
    base, tips = made(2)
    with pytest.raises(UsageError, match="3 values for 2"):
        merged(Ties(density=(0.1, 0.2, 0.3)), base, tips)
    assert Ties(density=(0.1, 0.2)).reordered((1, 0)) == Ties(density=(0.2, 0.1))

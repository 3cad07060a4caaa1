"""The experts' mixture against loops that say the same in twenty lines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.btm.ensembling.posterior import POSTERIORS, evaluate, last, mixture, uniform, updating, weights
from git_theta_btm.errors import ThetaError, UsageError

Array = Any


def losses(experts: int, windows: int, tokens: int, seed: int = 0, ragged: int = 0) -> Array:
    """Log-probabilities, the last window with ``ragged`` fewer predictions."""
    found = np.log(np.random.default_rng(seed).uniform(1e-4, 1, (experts, windows, tokens)))
    if ragged:
        found[:, -1, -ragged:] = np.nan
    return found


def loop(found: Array, prior: Array, posterior: str) -> tuple[list[float], list[list[float]]]:
    """The ensemble's -log p of each token, and the weights at the end of each window, in plain probabilities."""
    experts, windows, tokens = found.shape
    out, ends = [], []
    for window in range(windows):
        seen = [1.0] * experts
        share = list(prior)
        for token in range(tokens):
            p = [math.exp(found[j, window, token]) for j in range(experts)]
            if math.isnan(p[0]):
                break
            if posterior == "last-token" and token == 0:
                share = [1 / experts] * experts
            elif posterior == "static":
                share = list(prior)
            else:
                raw = [prior[j] * seen[j] for j in range(experts)]
                share = [value / sum(raw) for value in raw]
            out.append(-math.log(sum(share[j] * p[j] for j in range(experts))))
            seen = [seen[j] * p[j] if posterior == "history" else p[j] for j in range(experts)]
        ends.append(share)
    return out, ends


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000), st.sampled_from(POSTERIORS),
)  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_equal_to_the_loop(experts: int, windows: int, tokens: int, seed: int, posterior: str) -> None:
    found = losses(experts, windows, tokens, seed, ragged=seed % tokens)
    prior = np.random.default_rng(seed).dirichlet([1.0] * experts)
    expected, ends = loop(found, prior, posterior)
    by = weights(found, prior, posterior)
    mixed = mixture(found, by)
    assert -mixed[~np.isnan(mixed)] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert pytest.approx(np.array(ends), rel=1e-9, abs=1e-12) == last(found, by).T
    whole = evaluate(found, prior, posterior)
    assert whole.score.loss == pytest.approx(sum(expected), rel=1e-9)
    assert whole.score.tokens == len(expected)
    assert sum(whole.shares) == pytest.approx(1)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_copies_of_one_expert_are_that_expert(posterior: str) -> None:
    one = losses(1, 7, 20, ragged=3)
    found = np.repeat(one, 5, axis=0)
    mixed = evaluate(found, uniform(5), posterior)
    assert mixed.score.perplexity == pytest.approx(evaluate(one, uniform(1), posterior).score.perplexity, rel=1e-12)
    assert mixed.score.loss == pytest.approx(-np.nansum(one), rel=1e-12)
    assert mixed.shares == pytest.approx((0.2,) * 5)


def test_a_prior_for_one_expert_is_that_expert_but_at_the_start_of_windows() -> None:
    found = losses(3, 4, 10)
    prior = np.array([0.0, 1.0, 0.0])
    assert np.allclose(mixture(found, weights(found, prior, "history")), found[1])
    said = mixture(found, weights(found, prior, "last-token"))
    assert np.allclose(said[:, 1:], found[1][:, 1:])
    assert np.allclose(np.exp(said[:, 0]), np.exp(found[:, :, 0]).mean(axis=0))


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_order_of_experts_does_not_matter(posterior: str) -> None:
    found, prior = losses(4, 5, 12, seed=3, ragged=2), np.array([0.1, 0.2, 0.3, 0.4])
    order = [2, 0, 3, 1]
    one, other = evaluate(found, prior, posterior), evaluate(found[order], prior[order], posterior)
    assert one.score.loss == pytest.approx(other.score.loss, rel=1e-12)
    assert [one.shares[index] for index in order] == pytest.approx(other.shares)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_impossible_tokens_are_no_nan(posterior: str) -> None:
    found = losses(2, 2, 6)
    found[0, 0, 1] = -np.inf  # impossible for one
    found[:, 1, 2] = -np.inf  # and for all
    by = weights(found, uniform(2), posterior)
    said = mixture(found, by)
    assert not np.isnan(by).any()
    assert not np.isnan(said).any()
    assert np.isfinite(said[0]).all()
    assert np.isneginf(said[1, 2])
    assert np.exp(by).sum(axis=0) == pytest.approx(np.ones((2, 6)))
    if posterior == "history":
        assert np.isneginf(by[0, 0, 2:]).all()  # refuted once and for all
        assert np.exp(by[:, 1, 3]) == pytest.approx([0.5, 0.5])  # nobody was right: the prior again


def test_long_windows_do_not_underflow() -> None:
    found = np.full((2, 1, 50_000), -20.0)
    found[1] -= 0.001
    shares = np.exp(weights(found, uniform(2))[:, 0, -1])
    assert shares == pytest.approx([1, math.exp(-49.999)], rel=1e-6)


def test_a_prior_for_each_prediction() -> None:
    found = losses(2, 3, 5)
    wide = np.broadcast_to(np.array([0.3, 0.7])[:, None, None], found.shape)
    assert evaluate(found, wide).score.loss == pytest.approx(evaluate(found, np.array([0.3, 0.7])).score.loss)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_a_prior_that_follows_the_text(count: int) -> None:
    """pandas' ewm(alpha=.3, adjust=False).mean() of batch posteriors, each by the average before it."""
    found = losses(3, count, 6, seed=count, ragged=1)
    average = None
    steps = list(updating(found, "last-token"))
    assert len(steps) == -(-count // 2)
    for number, step in enumerate(steps):
        part = found[:, 2 * number : 2 * number + 2]
        out, ends = loop(part, [1 / 3] * 3 if average is None else average, "last-token")
        now = np.mean(ends, axis=0)
        average = now if average is None else 0.3 * now + 0.7 * average
        assert step.score.loss == pytest.approx(sum(out))
        assert step.posterior == pytest.approx(now)
        assert step.average == pytest.approx(average)
        assert sum(step.average) == pytest.approx(1)
        assert list(step.fields()) == ["ppl", "posterior", "exp_avg_posterior"]


def test_what_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="history, last-token, static"):
        weights(losses(2, 1, 3), uniform(2), "guess")
    with pytest.raises(ThetaError, match="nothing to predict"):
        evaluate(np.full((2, 1, 3), np.nan), uniform(2))

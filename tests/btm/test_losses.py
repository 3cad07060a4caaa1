"""Log-probabilities of windows against a loop over tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from forest import alone, model

from git_theta_btm.btm.evaluating.losses import log_probs
from git_theta_btm.btm.evaluating.perplexity import Score, score
from git_theta_btm.errors import ThetaError

torch = pytest.importorskip("torch")


def tokens(count: int) -> Any:
    return np.random.default_rng(count).integers(0, 258, count).astype(np.uint16)


def loop(found: Any, stream: Any, block: int) -> list[float]:
    """-log p of every token of every window but its first, one window at a time, in float64."""
    losses = []
    for start in range(0, len(stream), block):
        window = torch.tensor(stream[start : start + block].astype(np.int64))
        if len(window) > 1:
            with torch.no_grad():
                said = torch.log_softmax(found(input_ids=window[None]).logits[0].double(), -1)
            losses += [-float(said[index, token]) for index, token in enumerate(window[1:])]
    return losses


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 18, 97, 160])
def test_equal_to_a_loop_with_a_ragged_end(count: int) -> None:
    with alone():
        found, stream = model(), tokens(count)
        losses = log_probs(found, stream, 16, batch=3)
        expected = loop(found, stream, 16)
    assert losses.shape == (-(-count // 16), 15)
    assert losses.dtype == np.float32
    assert np.count_nonzero(~np.isnan(losses)) == len(expected)
    assert -losses[~np.isnan(losses)] == pytest.approx(expected, abs=1e-4)
    if expected:
        assert score(losses).perplexity == pytest.approx(math.exp(math.fsum(expected) / len(expected)), rel=1e-6)
        assert score(losses).tokens == len(expected)


def test_the_batch_changes_nothing_and_the_mode_is_as_before() -> None:
    with alone():
        found, stream = model().train(), tokens(200)
        one, many = log_probs(found, stream, 16, batch=1), log_probs(found, stream, 16, batch=100)
        assert found.training
    assert np.allclose(one, many, atol=1e-5, equal_nan=True)


def test_what_a_model_cannot_read_is_one_line() -> None:
    found = model()
    with pytest.raises(ThetaError, match="too long"):
        log_probs(found, tokens(100), 65)
    with pytest.raises(ThetaError, match="unknown to this model"):
        log_probs(found, np.array([1, 2, 258]), 16)
    assert log_probs(found, tokens(60), 65).shape == (1, 64)  # no window is that long


def test_scores_add_up_by_tokens() -> None:
    one, other = Score(10.0, 10), Score(2.0, 1)
    assert (one + other).perplexity == pytest.approx(math.exp(12 / 11))
    assert Score(math.inf, 3).perplexity == math.inf
    with pytest.raises(ThetaError, match="nothing to predict"):
        score(np.full((1, 4), np.nan, np.float32))

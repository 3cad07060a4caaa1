"""Dense predicts nothing."""

from __future__ import annotations

from git_theta_btm.updates import Span
from git_theta_btm.updates.dense import predict


def test_nothing_is_predicted() -> None:
    assert predict(Span(0, 8, 4), [], {}) is None

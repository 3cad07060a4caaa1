"""Weights for a merge, found by what it does to held-out text."""

from __future__ import annotations

import pytest

from git_theta_btm.btm.soups import Weights, greedy, normalised, search, strongest
from git_theta_btm.errors import ThetaError


def bowl(target: Weights) -> tuple[list[Weights], object]:
    """A loss with one lowest place, and all that it was asked for."""
    asked: list[Weights] = []

    def loss(weights: Weights) -> float:
        asked.append(weights)
        return sum((one - other) ** 2 for one, other in zip(weights, target, strict=True))

    return asked, loss


def test_a_greedy_soup_keeps_what_does_not_hurt() -> None:
    best = {(1.0, 0.0, 0.0): 1.0, (0.5, 0.0, 0.5): 0.8, (1 / 3, 1 / 3, 1 / 3): 0.9}
    asked = []

    def loss(weights: Weights) -> float:
        asked.append(weights)
        return best[weights]

    found = greedy([1.0, 3.0, 2.0], loss)
    assert found.weights == (0.5, 0.0, 0.5)
    assert found.loss == 0.8
    assert asked == [(0.5, 0.0, 0.5), (1 / 3, 1 / 3, 1 / 3)]  # the better expert is tried first


def test_a_greedy_soup_of_one() -> None:
    assert greedy([1.0], lambda weights: 0.0).weights == (1.0,)


@pytest.mark.parametrize("target", [(1.0, 0.0, 0.0), (0.6, 0.4, 0.0), (0.2, 0.3, 0.5)])
def test_a_search_gets_close(target: Weights) -> None:
    asked, loss = bowl(target)
    found = search((1.0, 1.0, 1.0), loss, 200)  # type: ignore[arg-type]
    assert found.loss < 0.003
    assert sum(found.weights) == pytest.approx(1)
    assert all(min(weights) >= 0 for weights in asked)


@pytest.mark.parametrize("evaluations", [1, 2, 7])
def test_a_search_stops_in_time_and_never_ends_worse(evaluations: int) -> None:
    asked, loss = bowl((0.0, 1.0))
    found = search((1.0, 0.0), loss, evaluations)  # type: ignore[arg-type]
    assert len(asked) == evaluations
    assert found.loss <= loss((1.0, 0.0))  # type: ignore[operator]


def test_weights_that_make_no_sense() -> None:
    for weights in ([0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]):
        with pytest.raises(ThetaError, match="positive"):
            normalised(weights)
    assert normalised([1.0, 3.0]) == (0.25, 0.75)


def test_the_strongest() -> None:
    assert strongest([0.2, 0.5, 0.5]) == (0.0, 1.0, 0.0)

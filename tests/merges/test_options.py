"""Options as texts and as numbers."""

from __future__ import annotations

import pytest

from git_theta_btm.errors import UsageError
from git_theta_btm.merges import BUILT_IN, load, make


@pytest.mark.parametrize("value", ["10", "10.0", 10, 10.0])
def test_whole_numbers(value: object) -> None:
    assert make("karcher", {"max_iter": value}).max_iter == 10  # type: ignore[attr-defined]


def test_long_numbers_keep_all_their_digits() -> None:
    assert make("dare_ties", {"seed": str(2**53 + 1)}).seed == 2**53 + 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["10.5", "ten", "", "inf", "nan", None, [1]])
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(UsageError, match="max_iter cannot be"):
        make("karcher", {"max_iter": value})


def test_unknown_words() -> None:
    with pytest.raises(UsageError, match="no merge strategy 'mean'"):
        make("mean", {})
    with pytest.raises(UsageError, match="ties has no option 'densty': it has density, lambda"):
        make("ties", {"densty": 1})
    with pytest.raises(UsageError, match=r"density cannot be 2: it is 0 to 1"):
        make("ties", {"density": 2})
    with pytest.raises(UsageError, match=r"scope cannot be 'layer': it is one of tensor, model"):
        make("ties", {"scope": "layer"})
    with pytest.raises(UsageError, match=r"normalize cannot be 'maybe'"):
        make("ties", {"normalize": "maybe"})


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_strategy_says_what_it_does(name: str) -> None:
    strategy = load(name)
    assert strategy.__doc__
    assert strategy.__doc__.split("\n")[0].endswith(".")
    assert strategy.least >= 1
    make(name, {})


def test_values_for_each_model_follow_them() -> None:
    strategy = make("ties", {"density": "0.1,0.2,0.3"})
    assert strategy.reordered([2, 0, 1]).density == (0.3, 0.1, 0.2)  # type: ignore[attr-defined]
    assert make("ties", {}).reordered([1, 0]).density == (0.2,)  # type: ignore[attr-defined]

"""Where an expert begins: the nearest update, what is reset, and mixtures."""

from __future__ import annotations

import pytest

from git_theta_btm.btm.training.branching import Point, parts, weights
from git_theta_btm.errors import UsageError

SAVED = [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("share", "step"),
    [(0.0, 10), (0.5, 20), (0.6, 20), (0.375, 10), (0.625, 30), (0.65, 30), (1.0, 40), (0.126, 10)],
)
def test_a_share_of_the_last_update(share: float, step: int) -> None:
    """Ties: 15 is the earlier of 10 and 20, as 0.375 is at most one half; 25 is the later of 20 and 30."""
    assert Point(share=share).nearest(SAVED) == step


@pytest.mark.parametrize(("update", "step"), [(27, 30), (0, 10), (25, 20), (-1, 40), (1000, 40), (None, 40)])
def test_a_number_of_an_update(update: int | None, step: int) -> None:
    assert Point(update=update).nearest(SAVED) == step


def test_the_order_of_saves_does_not_matter() -> None:
    for saved in (SAVED, SAVED[::-1], [30, 10, 40, 20]):
        assert Point(share=0.375).nearest(saved) == 10
        assert Point(share=0.625).nearest(saved) == 30


def test_both_make_no_sense() -> None:
    with pytest.raises(UsageError, match="give one"):
        Point(share=0.5, update=10)
    with pytest.raises(UsageError, match="from 0 to 1"):
        Point(share=1.5)


def test_what_can_be_reset() -> None:
    assert parts("dataloader,optimizer") == ("dataloader", "optimizer")
    assert parts("none") == ()
    with pytest.raises(UsageError, match="scheduler"):
        parts("scheduler")


def test_weights_of_a_mixture() -> None:
    assert weights("a=3,b=1") == {"a": 0.75, "b": 0.25}
    assert weights("with=sign=1") == {"with=sign": 1.0}
    for text in ("a", "a=x", "a=-1", "a=0,b=0", "=1", "a=nan", "a=inf"):
        with pytest.raises(UsageError):
            weights(text)

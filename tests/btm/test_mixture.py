"""Mixtures: exact counts, each block once in a pass, and nothing that depends on what was asked for before."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.btm.data.mixture import Balance, Draws, permutation, shares
from git_theta_btm.errors import UsageError

SIZES = {"code": 400, "legal": 100, "medical": 100}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("equal", (1 / 3, 1 / 3, 1 / 3)),
        ("proportional", (4 / 6, 1 / 6, 1 / 6)),
        ("alpha=0.5", (20 / 40, 10 / 40, 10 / 40)),  # sqrt(400), sqrt(100), sqrt(100)
        ("alpha=0", (1 / 3, 1 / 3, 1 / 3)),
        ("alpha=1", (4 / 6, 1 / 6, 1 / 6)),
    ],
)
def test_shares(text: str, expected: tuple[float, ...]) -> None:
    found = shares(SIZES, Balance.parse(text))
    assert list(found) == list(SIZES)
    assert tuple(found.values()) == pytest.approx(expected, abs=1e-15)


def test_shares_by_weights() -> None:
    found = shares(SIZES, Balance(weights={"medical": 3, "legal": 1, "code": 0}))
    assert found == {"code": 0.0, "legal": 0.25, "medical": 0.75}


def test_an_empty_domain_has_no_share() -> None:
    assert shares({"code": 10, "legal": 0}, Balance.parse("equal")) == {"code": 1.0, "legal": 0.0}


@pytest.mark.parametrize("text", ["", "even", "alpha", "alpha=", "alpha=x", "alpha=-1", "alpha=nan", "alpha=inf"])
def test_what_is_no_balance(text: str) -> None:
    with pytest.raises(UsageError):
        Balance.parse(text)


@pytest.mark.parametrize("weights", [{"code": 1.0}, dict.fromkeys([*SIZES, "more"], 1.0), dict.fromkeys(SIZES, 0.0)])
def test_weights_of_other_domains(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        shares(SIZES, Balance(weights=weights))


def test_equal_shares_give_equal_counts_in_every_window() -> None:
    draws = Draws(0, (1 / 3, 1 / 3, 1 / 3), (400, 100, 7))
    for window in range(200):
        assert {draws.item(3 * window + offset)[0] for offset in range(3)} == {0, 1, 2}


def test_an_update_has_as_many_blocks_of_each_domain() -> None:
    draws, batch = Draws(5, [1 / 8] * 8, [50] * 8), 32
    for update in range(100):
        counts = Counter(draws.item(update * batch + row)[0] for row in range(batch))
        assert counts == dict.fromkeys(range(8), 4)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=9).filter(any), st.integers(0, 1 << 40))
def test_shares_hold_to_within_one_block(weights: list[int], seed: int) -> None:
    total = sum(weights)
    draws = Draws(seed, [weight / total for weight in weights], [10] * len(weights))
    domains = sum(weight > 0 for weight in weights)
    counts = [0] * len(weights)
    for index in range(20 * domains):
        counts[draws.item(index)[0]] += 1
        if (index + 1) % domains == 0:
            rounding = (index + 1) / 65536 * 2
            for count, weight in zip(counts, weights, strict=True):
                assert abs(count - (index + 1) * weight / total) < 1 + rounding


def test_counts_over_a_whole_period_are_exact() -> None:
    draws = Draws(0, (0.75, 0.25), (1000, 10))
    assert Counter(draws.item(index)[0] for index in range(4000)) == {0: 3000, 1: 1000}


def test_each_pass_is_a_permutation_and_another_one() -> None:
    draws = Draws(3, (2 / 3, 1 / 3), (40, 7))
    blocks: dict[int, list[int]] = {0: [], 1: []}
    for index in range(3 * 280):
        domain, block = draws.item(index)
        blocks[domain].append(block)
    for domain, size in ((0, 40), (1, 7)):
        passes = [tuple(blocks[domain][at : at + size]) for at in range(0, len(blocks[domain]) - size, size)]
        # A window is shuffled as a whole, so two draws of one domain may change places across the end of a pass.
        assert all(max(Counter(row).values()) <= 2 for row in passes)
        assert len(set(passes)) == len(passes)
        counts = Counter(blocks[domain])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_with_equal_shares_passes_are_exact_permutations() -> None:
    draws = Draws(9, (0.5, 0.5), (11, 4))
    blocks = [[block for d, block in map(draws.item, range(2 * 44)) if d == domain] for domain in (0, 1)]
    assert all(sorted(blocks[0][at : at + 11]) == list(range(11)) for at in range(0, 44, 11))
    assert all(sorted(blocks[1][at : at + 4]) == list(range(4)) for at in range(0, 44, 4))


@settings(max_examples=60)
@given(st.integers(0, 1 << 60), st.lists(st.integers(0, 5000), min_size=1, max_size=40))
def test_an_item_depends_on_no_other(seed: int, places: list[int]) -> None:
    def fresh() -> Draws:
        return Draws(seed, (0.5, 0.375, 0.125), (17, 400, 3))

    shared = fresh()
    assert [shared.item(index) for index in places] == [fresh().item(index) for index in places]


def test_seeds_differ() -> None:
    orders = {tuple(Draws(seed, (0.5, 0.5), (50, 50)).item(index) for index in range(40)) for seed in range(20)}
    assert len(orders) == 20


def test_far_away_items_cost_no_more() -> None:
    domain, block = Draws(0, (0.9, 0.1), (1000, 10)).item(10**15)
    assert 0 <= block < (1000, 10)[domain]


def test_tiny_shares_are_drawn_at_all() -> None:
    draws = Draws(0, (1 - 1e-9, 1e-9), (5, 5))
    assert Counter(draws.item(index)[0] for index in range(1 << 16))[1] == 1


def test_a_share_needs_a_block() -> None:
    with pytest.raises(UsageError, match="domain 1 has no full block"):
        Draws(0, (0.5, 0.5), (3, 0))
    assert Draws(0, (1.0, 0.0), (3, 0)).item(4)[0] == 0


def test_the_order_never_changes() -> None:
    """These numbers are what a training of last year read: another NumPy must not change them."""
    assert permutation(8, "0", "pass", "0", "0").tolist() == [3, 2, 0, 7, 1, 5, 4, 6]

"""Weights from a posterior: read exactly, sharpened, and cut to the best."""

from __future__ import annotations

from math import fsum, inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.errors import UsageError
from git_theta_btm.merging.weights import parse, posterior, read, refined, sharpen, top_k

SHARES = st.lists(st.floats(0, 1e300), min_size=1, max_size=12).filter(any)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"legal": 0.1, "medical": 2}', {"legal": 0.1, "medical": 2.0}),
        ('{"prior": {"legal": 0.7, "medical": 0.3}, "estimator": "em"}', {"legal": 0.7, "medical": 0.3}),
        ('{"experts": ["legal", "medical"], "prior": [0.7, 0.3]}', {"legal": 0.7, "medical": 0.3}),
        ('{"prior": 0.7, "medical": 0.3}', {"prior": 0.7, "medical": 0.3}),
        ('{"prior": [0.7, 0.3]}', (0.7, 0.3)),
        ("[1, 0]", (1.0, 0.0)),
        ('{"ppl": 9.1, "posterior": [0.5, 0.5], "exp_avg_posterior": [0.25, 0.75]}', (0.25, 0.75)),
        ('{"ppl": 1, "exp_avg_posterior": [1, 0]}\n{"ppl": 2, "exp_avg_posterior": [0.25, 0.75]}\n\n', (0.25, 0.75)),
    ],
)
def test_forms(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", '"a"', "3", "{", "[0, 0]", "[-1, 2]", "[NaN]", "[Infinity]", "[true]", '["0.5"]',
        '{"a": "b"}', '{"a": 1, "a": 2}', '{"prior": {}}', '{"prior": {"a": null}}', '{"prior": [0.5], "experts": []}',
        '{"prior": [0.5, 0.5], "experts": ["a", "a"]}', '{"prior": [1], "experts": [1]}', "[1" + "0" * 400 + "]",
        "[" * 100_000, "[1]\nnot json",
    ],
)  # fmt: skip
def test_what_holds_no_shares(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_floats_go_on_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text('{"b": 0.30000000000000004, "a": 0.1, "c": 0.7}')
    assert posterior(str(path), ["a", "b", "c"]) == (0.1, 0.30000000000000004, 0.7)


def test_shares_of_experts_that_are_not_merged_are_spread(tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text('{"a": 0.5, "b": 0.25, "c": 0.25}')
    assert posterior(str(path), ["c", "a"]) == (1 / 3, 2 / 3)
    with pytest.raises(UsageError, match="no share for 'd': it has a, b, c"):
        posterior(str(path), ["a", "d"])


def test_shares_in_order_are_as_many_as_experts(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"exp_avg_posterior": [0.5, 0.5]}\n' * 100_000 + '{"exp_avg_posterior": [0.2, 0.8]}\n')
    assert posterior(str(path), ["a", "b"]) == (0.2, 0.8)
    assert posterior(str(path), ["a", "b"], 2.0, 1) == (0.0, 1.0)
    with pytest.raises(UsageError, match="2 shares for 3 models"):
        posterior(str(path), ["a", "b", "c"])


def test_shares_that_are_all_left_out_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text('{"a": 0, "b": 1}')
    with pytest.raises(UsageError, match="sum to 0"):
        posterior(str(path), ["a"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\xff\xfe{")
    for path in (tmp_path, tmp_path / "none", broken):
        with pytest.raises(UsageError, match=f"^{path}: "):
            read(str(path))


def test_sharpening_spans_uniform_posterior_and_the_most_likely() -> None:
    weights = (0.2, 0.5, 0.3)
    assert sharpen(weights, 0) == (1 / 3, 1 / 3, 1 / 3)
    assert sharpen(weights, 1) == weights
    assert sharpen(weights, 2) == pytest.approx((4 / 38, 25 / 38, 9 / 38), rel=1e-11)
    assert sharpen(weights, inf) == sharpen(weights, 1e9) == (0.0, 1.0, 0.0)
    assert sharpen((0.5, 0.5), inf) == (0.5, 0.5)


@given(SHARES, st.floats(0, 1e6).filter(lambda power: power != 1))
def test_sharpened_weights_sum_to_1_and_keep_their_order(shares: list[float], power: float) -> None:
    found = sharpen(shares, power)
    assert fsum(found) == pytest.approx(1)
    order = sorted(range(len(shares)), key=shares.__getitem__)
    assert all(found[low] <= found[high] for low, high in zip(order, order[1:], strict=False))


@given(SHARES, st.integers(1, 14))
def test_the_largest_stay(shares: list[float], k: int) -> None:
    found = top_k(shares, k)
    if k >= len(shares):
        assert found == tuple(shares)
        return
    kept = [index for index, weight in enumerate(found) if weight]
    assert len(kept) <= k
    assert fsum(found) == pytest.approx(1)
    if len(kept) == k:
        assert min(shares[index] for index in kept) >= max(s for index, s in enumerate(shares) if index not in kept)


def test_of_equal_weights_the_first_stay() -> None:
    assert top_k((0.25, 0.25, 0.25, 0.25), 2) == (0.5, 0.5, 0.0, 0.0)
    assert top_k((0.1, 0.3, 0.3, 0.3), 1) == (0.0, 1.0, 0.0, 0.0)


def test_sharpened_first_then_cut() -> None:
    assert refined((0.2, 0.5, 0.3), 2.0, 2) == pytest.approx((0, 25 / 34, 9 / 34))
    assert refined((0.2, 0.5), None, None) == (0.2, 0.5)


@pytest.mark.parametrize("power", [-1.0, float("nan")])
def test_sharpness_is_at_least_0(power: float) -> None:
    with pytest.raises(UsageError, match="at least 0"):
        sharpen((0.5, 0.5), power)


def test_weights_that_are_no_shares_cannot_be_sharpened() -> None:
    for weights in ((-0.5, 1.5), (0.0, 0.0)):
        with pytest.raises(UsageError, match="can be sharpened"):
            sharpen(weights, 2)
    with pytest.raises(UsageError, match="sum to 0"):
        top_k((0.0, 0.0), 1)
    with pytest.raises(UsageError, match="at least 1"):
        top_k((0.5, 0.5), 0)

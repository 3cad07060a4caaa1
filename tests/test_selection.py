"""The k-th largest magnitude, however many elements there are and however they are cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from git_theta_btm.maths import selection
from git_theta_btm.maths.selection import largest, last, share

ANY = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)


def passes(streams: list[Any], size: int = 7) -> Any:
    """Passes over streams of equal length, by tiles of some size."""

    def start() -> Iterator[list[Any]]:
        for at in range(0, len(streams[0]), size):
            yield [stream[at : at + size] for stream in streams]

    return start


def sorted_(stream: Any) -> Any:
    """The magnitudes from the largest on; NaN is infinite."""
    return np.sort(np.nan_to_num(np.abs(stream), nan=np.inf, posinf=np.inf))[::-1]


@pytest.fixture(params=[1, 4, 1 << 20], autouse=True)
def gathered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few elements take the way of many, too."""
    monkeypatch.setattr(selection, "GATHERED", request.param)


@given(arrays(np.float64, st.integers(1, 60), elements=ANY), st.integers(1, 9))
@settings(deadline=None, max_examples=100)
def test_every_rank(stream: Any, size: int) -> None:
    ranks = range(1, len(stream) + 1)
    (found,) = largest(passes([stream], size), len(stream), [ranks])
    np.testing.assert_array_equal(found, sorted_(stream))


def test_streams_are_apart() -> None:
    random = np.random.default_rng(1)
    streams = [random.standard_normal(500), np.repeat([1.0, -2.0, 3.0, 0.0], 125), np.zeros(500)]
    found = largest(passes(streams), len(streams[0]), [(100,), (125, 126), ()])
    assert found == [(sorted_(streams[0])[99],), (3.0, 2.0), ()]


def test_what_takes_no_pass() -> None:
    def never() -> Any:
        raise AssertionError

    assert largest(never, 5, [(0, 6), (-1,), (last(5, 5),)]) == [(np.inf, 0.0), (np.inf,), (0.0,)]
    assert largest(never, 0, [(0, 1)]) == [(np.inf, 0.0)]


def test_neighbours_are_told_apart() -> None:
    stream = 1.0 + np.arange(100) * 2.0**-52
    np.random.default_rng(2).shuffle(stream)
    assert largest(passes([stream]), 100, [(1, 37, 100)]) == [(1 + 99 * 2.0**-52, 1 + 63 * 2.0**-52, 1.0)]


def test_nothing_is_changed() -> None:
    stream = np.asarray([3.0, -1.0, 2.0, np.nan])
    before = stream.copy()
    assert largest(passes([stream]), 4, [(1, 2, 4)]) == [(np.inf, 3.0, 1.0)]
    np.testing.assert_array_equal(stream, before)


def test_shares() -> None:
    assert [share(0.2, size) for size in (0, 1, 4, 5, 100)] == [0, 1, 1, 1, 20]
    assert [share(density, 10) for density in (0.0, 1e-9, 0.99, 1.0)] == [0, 1, 9, 10]
    assert [last(kept, 10) for kept in (0, 9, 10)] == [0, 9, 11]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_many_elements(library: str) -> None:
    torch = pytest.importorskip("torch") if library == "torch" else None
    stream = np.random.default_rng(3).standard_normal(300_000)
    tiles = torch.tensor(stream) if torch else stream
    assert largest(passes([tiles], 1 << 16), 300_000, [(60_000,)]) == [(sorted_(stream)[59_999],)]

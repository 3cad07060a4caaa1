"""Byte planes give back what they were made of, are never much larger, and believe nothing that a payload claims."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import CorruptObject
from git_theta_btm.planes import TYPES, Values, compress, expand

WIDTHS = sorted(TYPES)
RAW, ZSTD, ZERO, SPARSE = 0, 1, 2, 3


def random(width: int, count: int, seed: int = 0) -> Values:
    return np.frombuffer(np.random.default_rng(seed).bytes(width * count), TYPES[width])


def weights(count: int, width: int = 4) -> Values:
    numbers = np.random.default_rng(0).normal(0, 0.02, count).astype(f"f{width}")
    return numbers.view(TYPES[width])


def payload(*planes: tuple[int, bytes]) -> bytes:
    table = struct.pack(f"<{len(planes)}I", *(mode << 30 | len(data) for mode, data in planes))
    return table + b"".join(data for _, data in planes)


@st.composite
def arrays(draw: st.DrawFn) -> Values:
    """Values of any width: arbitrary, few different ones, or nearly all zero."""
    width = draw(st.sampled_from(WIDTHS))
    whole = st.integers(0, (1 << 8 * width) - 1)
    few = st.sampled_from(draw(st.lists(whole, min_size=1, max_size=3)))
    values = draw(st.lists(draw(st.sampled_from([whole, few, st.sampled_from([0, 0, 0, 1])])), max_size=300))
    return np.array(values * draw(st.sampled_from([1, 1, 40])), TYPES[width])


@settings(max_examples=200)
@given(arrays())
@example(np.zeros(0, np.uint8))
@example(np.zeros(1, "<u8"))
def test_values_come_back(values: Values) -> None:
    data = compress(values)
    back = expand(data, values.itemsize, len(values))
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)
    assert len(data) <= values.nbytes + 20 * values.itemsize


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 2, 8191, 8192, 8193, 100_001])
def test_random_values_are_kept_as_they_are(width: int, count: int) -> None:
    values = random(width, count)
    data = compress(values)
    assert np.array_equal(expand(data, width, count), values)
    assert len(data) == values.nbytes + 4 * width


@pytest.mark.parametrize("width", WIDTHS)
def test_zeros_take_nothing(width: int) -> None:
    assert compress(np.zeros(100_000, TYPES[width])) == b""
    assert not expand(b"", width, 100_000).any()


def test_only_planes_that_shrink_are_compressed() -> None:
    modes = [word >> 30 for word in struct.unpack_from("<4I", compress(weights(100_000)))]
    assert modes == [RAW, RAW, RAW, ZSTD]


def test_weights_shrink() -> None:
    values = weights(1_000_000)
    assert len(compress(values)) < 0.88 * values.nbytes


def test_one_value_among_zeros_costs_next_to_nothing() -> None:
    values = np.zeros(1_000_000, "<u4")
    values[777_777] = 0x01020304
    assert len(compress(values)) < 1000
    assert np.array_equal(expand(compress(values), 4, len(values)), values)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("share", [1e-5, 0.01, 0.03, 0.09, 0.2, 0.24, 0.26, 0.9])
def test_values_that_are_mostly_zero(width: int, share: float) -> None:
    numbers = np.random.default_rng(0)
    values = random(width, 100_003) * (numbers.random(100_003) < share).astype(TYPES[width])
    data = compress(values)
    assert np.array_equal(expand(data, width, len(values)), values)
    assert len(data) < min(1.3 * share + 0.2, 1.01) * values.nbytes


@pytest.mark.parametrize("density", [0.0, 0.5, 0.9, 0.98, 0.985, 0.99, 1.0])
def test_values_that_mislead_a_sample(density: float) -> None:
    """Zero wherever the sample looks, but once: no payload is much larger than what it holds."""
    numbers = np.random.default_rng(0)
    values = numbers.integers(1, 256, 1 << 20).astype(np.uint8) * (numbers.random(1 << 20) < density).astype(np.uint8)
    values[:: 1 << 7] = 0
    values[0] = 1
    data = compress(values)
    assert np.array_equal(expand(data, 1, len(values)), values)
    assert len(data) < 1.02 * len(values)


def test_the_argument_is_left_alone() -> None:
    values = weights(10_000)
    values.flags.writeable = False
    before = values.tobytes()
    data = compress(values)
    expand(data, 4, 10_000)[:] = 0
    assert values.tobytes() == before


def test_a_payload_may_be_a_view() -> None:
    values = weights(10_000)
    assert np.array_equal(expand(memoryview(compress(values)), 4, 10_000), values)


# -- hostile payloads ------------------------------------------------------------------------------------------------

FRAME = zstandard.ZstdCompressor().compress(bytes(range(100)))
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(range(100)))
# RFC 8878, 3.1.1: a frame of one segment whose content size has eight bytes, and a block that repeats one byte.
BOMB = (
    b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + (1 | 1 << 1 | (128 << 10) << 3).to_bytes(3, "little") + b"a"
)
SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"skip"

MAP = bytes([0b10000000]) + bytes(12)  # of a hundred places, the first


def sparse(there: int, *parts: tuple[int, bytes]) -> bytes:
    return payload((SPARSE, struct.pack("<I", there) + payload(*parts)))


HOSTILE = {
    "an empty sparse plane": payload((SPARSE, b"")),
    "a sparse plane without a map": sparse(1, (ZERO, b""), (RAW, b"a")),
    "a map that is too short": sparse(1, (RAW, MAP[:-1]), (RAW, b"a")),
    "a map that is too long": sparse(1, (RAW, MAP + b"\0"), (RAW, b"a")),
    "fewer bytes than the map says": sparse(0, (RAW, MAP), (RAW, b"")),
    "more bytes than the map says": sparse(2, (RAW, MAP), (RAW, b"ab")),
    "more bytes than there are": sparse(1 << 30, (RAW, MAP), (ZSTD, BOMB)),
    "a sparse map": sparse(1, (SPARSE, bytes(12)), (RAW, b"a")),
    "sparse bytes": sparse(1, (RAW, MAP), (SPARSE, bytes(12))),
    "no room for the table": b"\0" * 3,
    "shorter than it says": payload((RAW, bytes(100)))[:-1],
    "longer than it says": payload((RAW, bytes(100))) + b"\0",
    "too few": payload((RAW, bytes(99))),
    "too many": payload((RAW, bytes(101))),
    "zeros with data": payload((ZERO, b"\0")),
    "unknown kind": payload((3, bytes(100))),
    "a lying length": struct.pack("<I", (1 << 30) - 1) + bytes(100),
    "an empty frame": payload((ZSTD, b"")),
    "not a frame": payload((ZSTD, bytes(100))),
    "a frame that is cut short": payload((ZSTD, FRAME[:-5])),
    "a frame without a size": payload((ZSTD, UNSIZED)),
    "a frame of another size": payload((ZSTD, zstandard.compress(bytes(1 << 20)))),
    "a bomb": payload((ZSTD, BOMB)),
    "nothing but a comment": payload((ZSTD, SKIPPABLE)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_payload_is_refused_in_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CorruptObject):
            expand(HOSTILE[name], 1, 100)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=200)
@given(st.data(), st.sampled_from(WIDTHS))
def test_a_damaged_payload_gives_values_or_an_error(data: st.DataObject, width: int) -> None:
    count = 500
    good = bytearray(compress(np.arange(count).astype(TYPES[width]) * TYPES[width].type(3)))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(good)))
    with suppress(CorruptObject):
        values = expand(bytes(good[:cut]), width, count)
        assert (values.dtype, values.shape) == (TYPES[width], (count,))

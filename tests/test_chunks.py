from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.chunks import MAX, MIN, MULTIPLIER, SPACING, THRESHOLD, WINDOW, chunks
from git_theta_btm.errors import FormatError
from git_theta_btm.source import BytesSource, FileSource


@cache
def noise() -> bytes:
    return hashlib.shake_256(b"chunks").digest(40 << 20)


def cut(data: bytes) -> list[tuple[int, int]]:
    return chunks(BytesSource(data), 0, len(data))


def digests(data: bytes) -> list[bytes]:
    return [hashlib.sha256(data[at : at + size]).digest() for at, size in cut(data)]


def rolling_hash(window: bytes) -> int:
    words = [int.from_bytes(window[at : at + 4], "little") for at in range(0, WINDOW, 4)]
    return sum(word * MULTIPLIER ** (7 - index) for index, word in enumerate(words)) % (1 << 32)


GOLDEN = [
    (0, 2_633_135),
    (2_633_135, 2_657_977),
    (5_291_112, 1_367_761),
    (6_658_873, 1_528_159),
    (8_187_032, 4_327_427),
    (12_514_459, 7_002_255),
    (19_516_714, 13_967_215),
    (33_483_929, 2_529_651),
    (36_013_580, 2_943_716),
    (38_957_296, 2_985_744),
]


def test_the_cuts_are_these_for_ever() -> None:
    """Golden: other cuts would store the same bytes again under other names."""
    assert cut(noise()) == GOLDEN


def test_cuts_are_the_first_windows_beyond_the_threshold() -> None:
    for at, size in cut(noise())[:-1]:
        assert size == MAX or rolling_hash(noise()[at + size - WINDOW : at + size]) >= THRESHOLD
    at, size = cut(noise())[0]
    words = [np.frombuffer(noise()[lane : at + size], "<u4", (at + size - lane) // 4).astype("u8") for lane in range(4)]
    for lane, values in enumerate(words):
        powers = [pow(MULTIPLIER, 7 - index, 1 << 32) for index in range(8)]
        sums = sum(values[index : len(values) - 7 + index] * powers[index] % (1 << 32) for index in range(8))
        hits = lane + 4 * np.flatnonzero(sums % (1 << 32) >= THRESHOLD) + WINDOW
        assert not [hit for hit in hits.tolist() if MIN <= hit < size]


@given(st.integers(0, 40 << 20), st.integers(0, 6 << 20))
@settings(deadline=None, max_examples=30)
def test_chunks_cover_the_range_in_order(start: int, length: int) -> None:
    end = min(start + length, len(noise()))
    at = start
    for offset, size in chunks(BytesSource(noise()), start, end):
        assert offset == at
        assert 0 < size <= MAX
        at += size
        assert size >= MIN or at == end
    assert at == end


@pytest.mark.parametrize("length", [1, WINDOW, MIN - 1, MIN])
def test_up_to_the_minimum_is_one_chunk(length: int) -> None:
    assert chunks(BytesSource(noise()), 5, 5 + length) == [(5, length)]


def test_an_empty_range_has_no_chunk() -> None:
    assert chunks(BytesSource(b""), 0, 0) == []


def test_the_average_is_four_mebibytes() -> None:
    assert pytest.approx(SPACING, rel=1e-3) == (1 << 32) // ((1 << 32) - THRESHOLD)
    assert MIN + SPACING == 4 << 20
    assert 5 <= len(cut(noise())) <= 20


@pytest.mark.parametrize("inserted", [b"x", b"some bytes", bytes(4096), b"y" * 100_001])
@pytest.mark.parametrize("place", [0, 9_000_001, 30 << 20])
def test_an_insertion_moves_few_cuts(inserted: bytes, place: int) -> None:
    before, after = digests(noise()), digests(noise()[:place] + inserted + noise()[place:])
    assert len(set(after) - set(before)) <= 2
    assert len(set(before) - set(after)) <= 2


def test_a_deletion_moves_few_cuts() -> None:
    before, after = digests(noise()), digests(noise()[:5_000_000] + noise()[5_000_100:])
    assert len(set(after) - set(before)) <= 2


def test_cuts_do_not_depend_on_where_the_range_starts_in_the_file() -> None:
    shifted = BytesSource(b"abc" + noise())
    assert chunks(shifted, 3, shifted.size) == [(at + 3, size) for at, size in cut(noise())]


@pytest.mark.parametrize("byte", [0, 1, 0x3F, 0x80, 0xFF])
def test_constant_bytes_make_the_largest_chunks(byte: int) -> None:
    assert cut(bytes([byte]) * (2 * MAX + 5)) == [(0, MAX), (MAX, MAX), (2 * MAX, 5)]


def test_memory_is_bounded() -> None:
    source = BytesSource(noise())
    chunks(source, 0, 2 << 20)
    tracemalloc.start()
    try:
        chunks(source, 0, source.size)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_threads_share_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(noise()[: 20 << 20])
    expected = cut(path.read_bytes())
    results: list[list[tuple[int, int]]] = []
    with path.open("rb") as file:
        source = FileSource(file.fileno())
        work = [threading.Thread(target=lambda: results.append(chunks(source, 0, source.size))) for _ in range(4)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
    assert results == [expected] * 4


def test_a_range_beyond_the_source_is_an_error() -> None:
    with pytest.raises(FormatError):
        chunks(BytesSource(bytes(2 * MIN)), 0, 3 * MIN)


def test_small_ranges_do_not_import_numpy() -> None:
    code = (
        "import sys; from git_theta_btm.chunks import MIN, chunks; from git_theta_btm.source import BytesSource;"
        "assert chunks(BytesSource(bytes(MIN)), 0, MIN) == [(0, MIN)]; assert 'numpy' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm import pack
from git_theta_btm.errors import CorruptObject
from git_theta_btm.manifest import PACKED, Digest

GOLDEN = (Path(__file__).parent / "golden" / "pack-1.bin").read_bytes()


def by_digest(*blobs: bytes) -> dict[Digest, bytes]:
    return {Digest.of(blob): blob for blob in blobs}


@given(st.lists(st.binary(max_size=100)))
def test_what_is_packed_is_unpacked(blobs: list[bytes]) -> None:
    packed = list(pack.dumps(by_digest(*blobs)))
    assert len(packed) == bool(blobs)
    for members, data in packed:
        assert pack.loads(data) == by_digest(*blobs)
        assert members == sorted(by_digest(*blobs))


@given(st.permutations([b"a", b"bb", b"ccc", b"", b"e" * PACKED]))
def test_the_same_blobs_make_the_same_pack(blobs: list[bytes]) -> None:
    assert list(pack.dumps(by_digest(*blobs))) == list(pack.dumps(by_digest(*sorted(blobs))))


def test_the_golden_pack_loads_and_is_written_the_same_for_ever() -> None:
    blobs = pack.loads(GOLDEN)
    assert len(blobs) == 4
    assert all(Digest.of(blob) == digest for digest, blob in blobs.items())
    assert [data for _, data in pack.dumps(blobs)] == [GOLDEN]


def test_many_blobs_make_several_packs() -> None:
    blobs = by_digest(*(index.to_bytes(4, "big") * (PACKED // 4) for index in range(1200)))
    packs = list(pack.dumps(blobs))
    assert len(packs) == 3
    assert all(len(data) < pack.LIMIT + (1 << 16) for _, data in packs)
    assert [digest for members, _ in packs for digest in members] == sorted(blobs)
    assert {digest: blob for _, data in packs for digest, blob in pack.loads(data).items()} == blobs


def row(digest: str, size: int) -> bytes:
    return bytes.fromhex(digest) + struct.pack("<I", size)


HEAD = b"git-theta-btm pack 1\n"
LOW, HIGH = "0" * 64, "f" * 64


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + b"\1\0\0",
        HEAD.replace(b"1", b"2") + b"\0\0\0\0",
        HEAD + b"\1\0\0\0",
        HEAD + b"\xff\xff\xff\xff",
        HEAD + b"\xff\xff\xff\xff" + row(LOW, 1) + b"a",
        HEAD + b"\1\0\0\0" + row(LOW, 2) + b"a",
        HEAD + b"\1\0\0\0" + row(LOW, 1) + b"ab",
        HEAD + b"\1\0\0\0" + row(LOW, PACKED + 1) + b"a" * (PACKED + 1),
        HEAD + b"\1\0\0\0" + row(LOW, 0xFFFFFFFF),
        HEAD + b"\2\0\0\0" + row(HIGH, 1) + row(LOW, 1) + b"ab",
        HEAD + b"\2\0\0\0" + row(LOW, 1) + row(LOW, 1) + b"ab",
        HEAD + b"\0\0\0\0more",
    ],
)
def test_what_is_no_pack(data: bytes) -> None:
    with pytest.raises(CorruptObject):
        pack.loads(data)


@pytest.mark.parametrize("size", range(0, len(GOLDEN), 97))
def test_a_pack_cut_short(size: int) -> None:
    with pytest.raises(CorruptObject):
        pack.loads(GOLDEN[:size])


@given(st.integers(0, len(GOLDEN) - 1), st.binary(min_size=1, max_size=4))
def test_whatever_is_done_to_a_pack(at: int, replacement: bytes) -> None:
    data = GOLDEN[:at] + replacement + GOLDEN[at + len(replacement) :]
    try:
        blobs = pack.loads(data)
    except CorruptObject:
        return
    if data[: len(GOLDEN)] != GOLDEN:  # the digests are for whoever asks for a blob to check
        assert {Digest.of(blob) for blob in blobs.values()} != set(pack.loads(GOLDEN)) or blobs != pack.loads(GOLDEN)

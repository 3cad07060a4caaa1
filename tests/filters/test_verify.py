"""Verify: no wrong byte passes, the object that is to blame is named, and what was proven once is not decoded again."""

from __future__ import annotations

import pytest
from test_encoded import close, dumps, numbers, written

from git_theta_btm import pack
from git_theta_btm.blobs import Blobs
from git_theta_btm.encoded import CHUNK, Header
from git_theta_btm.errors import CorruptObject, MissingObject
from git_theta_btm.filters.verify import Verifier
from git_theta_btm.manifest import PACKED, Digest, Stored
from git_theta_btm.store import Forgetful, MemoryStore, put

SIZE = 4 * PACKED
RAW, DENSE = numbers(3 << 20), numbers(SIZE, 1)
DELTA, YOUNGEST = close(DENSE), close(close(DENSE))
SMALL = b"small"


def name(data: bytes) -> Digest:
    return Digest.of(data)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def lines(store: MemoryStore) -> list[Stored]:
    """A raw and a small blob, and a dense one that two others are based on, one on the other."""
    put(store, RAW)
    found = []
    for data, bases in ((DENSE, []), (DELTA, [DENSE]), (YOUNGEST, [DELTA])):
        kind = "delta" if bases else "dense"
        text = dumps(data, Header(kind, 4, len(data), {}), bases)
        found.append(Stored(kind, put(store, text), len(text), (name(data), *map(name, bases))))
    ((_, packed),) = pack.dumps({name(SMALL): SMALL})
    return [*found, Stored("pack", put(store, packed), len(packed))]


def verify(store: MemoryStore, lines: list[Stored], data: bytes, memory: Forgetful | None = None) -> None:
    Verifier(Blobs(lines, store), memory or Forgetful()).verify(name(data), len(data))


def flip(store: MemoryStore, oid: str, at: int) -> None:
    data = bytearray(store.objects[Digest(oid)])
    data[at] ^= 1
    store.objects[Digest(oid)] = bytes(data)


@pytest.mark.parametrize(
    "data", [RAW, DENSE, DELTA, YOUNGEST, SMALL], ids=["raw", "dense", "delta", "youngest", "small"]
)
@pytest.mark.parametrize("remembered", [True, False])
def test_what_is_right_passes(store: MemoryStore, lines: list[Stored], data: bytes, remembered: bool) -> None:  # noqa: FBT001
    memory = Forgetful()
    if remembered:
        verify(store, lines, data, memory)
    verify(store, lines, data, memory)


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("at", [0, 30, 150, 5000, -1, -6])
@pytest.mark.parametrize("which", [0, 1, 2, "raw"])
def test_a_flipped_bit_is_blamed_on_its_object(
    store: MemoryStore,
    lines: list[Stored],
    which: int | str,
    at: int,
    remembered: bool,  # noqa: FBT001
) -> None:
    """Whether it is the object of the blob itself, or that of its base, or of its base's base."""
    memory = Forgetful()
    order = [DENSE, DELTA, YOUNGEST]
    oid = name(RAW) if which == "raw" else lines[int(which)].oid
    for data in (*order, RAW) if remembered else ():
        verify(store, lines, data, memory)
    flip(store, oid, at)
    wrong = [RAW] if which == "raw" else order[int(which) : int(which) + 1] if remembered else order[int(which) :]
    for data in wrong:
        with pytest.raises(CorruptObject, match=oid):
            verify(store, lines, data, memory)


@pytest.mark.parametrize("which", [0, 1])
def test_a_base_that_is_gone_is_named(store: MemoryStore, lines: list[Stored], which: int) -> None:
    del store.objects[lines[which].oid]
    with pytest.raises(MissingObject, match=lines[which].oid):
        verify(store, lines, YOUNGEST)


def test_an_object_that_claims_another_tensors_digest(store: MemoryStore, lines: list[Stored]) -> None:
    liar = Stored(lines[0].kind, lines[0].oid, lines[0].size, (name(RAW),))
    with pytest.raises(CorruptObject, match=lines[0].oid):
        verify(store, [liar], RAW)


def test_a_pack_that_claims_anothers_digest(store: MemoryStore) -> None:
    ((_, packed),) = pack.dumps({name(SMALL): b"other"})
    with pytest.raises(CorruptObject):
        verify(store, [Stored("pack", put(store, packed), len(packed))], SMALL)


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("data", [RAW, DENSE, YOUNGEST, SMALL], ids=["raw", "dense", "youngest", "small"])
@pytest.mark.parametrize("size", [0, 1, SIZE - 4, SIZE + 4, 1 << 60])
def test_another_size_than_the_manifest_says(
    store: MemoryStore,
    lines: list[Stored],
    data: bytes,
    size: int,
    remembered: bool,  # noqa: FBT001
) -> None:
    """Even of an object that was decoded before: a part of it must not be written as if it were the whole."""
    memory = Forgetful()
    if remembered:
        verify(store, lines, data, memory)
    with pytest.raises(CorruptObject):
        Verifier(Blobs(lines, store), memory).verify(name(data), size)


def test_what_was_proven_is_not_decoded_again(store: MemoryStore, lines: list[Stored]) -> None:
    memory = Forgetful()
    verify(store, lines, YOUNGEST, memory)
    assert memory.stored(name(YOUNGEST)) == lines[2]
    assert memory.stored(name(DELTA)) is None
    flip(store, lines[0].oid, 5000)  # decoding would notice; the object of the blob itself is what it was
    verify(store, lines, YOUNGEST, memory)
    with pytest.raises(CorruptObject, match=lines[0].oid):
        verify(store, lines, DENSE, memory)


def test_another_line_for_a_proven_blob_is_decoded(store: MemoryStore, lines: list[Stored]) -> None:
    memory = Forgetful()
    verify(store, lines, DENSE, memory)
    text = written(
        {"chunk": CHUNK, "group": None, "kind": "dense", "parameters": {}, "size": SIZE, "width": 4}, bytes(4)
    )
    liar = Stored("dense", put(store, text), len(text), (name(DENSE),))
    with pytest.raises(CorruptObject, match=liar.oid):
        verify(store, [liar], DENSE, memory)
    assert memory.stored(name(DENSE)) == lines[0]


def test_a_base_that_claims_terabytes_is_not_read(store: MemoryStore) -> None:
    """Four bytes stand for 64 MiB of zeros."""
    size = 1 << 34
    fields = {"chunk": 64 << 20, "group": None, "kind": "dense", "parameters": {}, "size": size, "width": 4}
    text = written(fields, bytes(4 * (size // (64 << 20))))
    line = Stored("dense", put(store, text), len(text), (name(b"base"),))
    with pytest.raises(CorruptObject):
        Verifier(Blobs([line], store), Forgetful(), limit=1 << 20).verify(name(b"base"))


def test_blame_in_a_cycle_comes_to_an_end(store: MemoryStore) -> None:
    data = [put(store, b"x" * SIZE)] * 2
    lines = [
        Stored("delta", data[0], SIZE, (name(b"a"), name(b"b"))),
        Stored("delta", data[1], SIZE, (name(b"b"), name(b"a"))),
    ]
    with pytest.raises(CorruptObject):
        Verifier(Blobs(lines, store), Forgetful()).verify(name(b"a"))


def test_sources_of_any_length_have_a_digest(store: MemoryStore) -> None:
    for size in (0, 1, (1 << 20) - 1, 1 << 20, (4 << 20) + 1):
        put(store, bytes(size))
        verify(store, [], bytes(size))

"""Blobs: any blob of a manifest as a source, and an end to whatever a hostile manifest says about its objects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from threading import Thread

import pytest
from test_encoded import close, dumps, numbers

from git_theta_btm import pack
from git_theta_btm.blobs import MAX_WORK, Blobs
from git_theta_btm.encoded import Header
from git_theta_btm.errors import CorruptObject, MissingObject, ObjectError
from git_theta_btm.manifest import PACKED, Digest, Stored
from git_theta_btm.store import MemoryStore, put

SIZE = PACKED + 80


def digest(name: object) -> Digest:
    return Digest.of(str(name).encode())


def line(blob: Digest, *bases: Digest) -> Stored:
    """An object line for objects that nobody will look at."""
    return Stored("delta", digest("object"), 1 << 20, (blob, *bases))


def read(blobs: Blobs, blob: Digest) -> bytes:
    with blobs.open(blob) as source:
        return source.read(0, source.size)


def encoded(store: MemoryStore, data: bytes, kind: str = "dense", bases: Iterable[bytes] = ()) -> Stored:
    """An object in the store that holds ``data``."""
    bases = list(bases)
    text = dumps(data, Header(kind, 4, len(data), {}), bases)
    return Stored(kind, put(store, text), len(text), (Digest.of(data), *map(Digest.of, bases)))


def chain(store: MemoryStore, length: int) -> tuple[list[Stored], bytes]:
    """The lines of a raw tensor's descendants, each a change of the last, and the bytes of the youngest."""
    data = numbers(SIZE)
    put(store, data)
    lines = []
    for _ in range(length):
        base, data = data, close(data)
        lines.append(encoded(store, data, "delta", [base]))
    return lines, data


# -- where blobs are -------------------------------------------------------------------------------------------------


def test_every_way_to_store_a_blob() -> None:
    store = MemoryStore()
    raw, dense, delta, small = numbers(SIZE), numbers(SIZE, 1), close(numbers(SIZE)), b"small"
    lines = [encoded(store, dense), encoded(store, delta, "delta", [raw])]
    assert lines[1].packed  # a small object lives in a pack itself
    held = store.objects.pop(lines[1].oid)
    ((_, packed),) = pack.dumps({Digest.of(small): small, lines[1].oid: held})
    put(store, raw)
    blobs = Blobs([*lines, Stored("pack", put(store, packed), len(packed))], store)
    for data in (raw, dense, delta, small):
        assert blobs.holds(Digest.of(data))
        assert read(blobs, Digest.of(data)) == data
    assert [blobs.work(Digest.of(data)) for data in (raw, dense, delta, small)] == [0, 1, 1, 0]
    assert not blobs.holds(digest("none"))


def test_a_missing_blob_object_or_base() -> None:
    store = MemoryStore()
    lines, data = chain(store, 2)
    for gone in (Digest.of(numbers(SIZE)), lines[0].oid, lines[1].oid):
        poor = MemoryStore()
        poor.objects = {oid: text for oid, text in store.objects.items() if oid != gone}
        with pytest.raises(MissingObject, match=gone):
            read(Blobs(lines, poor), Digest.of(data))


@pytest.mark.parametrize("damage", ["missing", "corrupt", "not a pack"])
def test_a_pack_that_is_no_use_holds_nothing(damage: str) -> None:
    """What is staged over a version whose objects were never fetched must not need them."""
    store = MemoryStore()
    text = b"not a pack" if damage == "not a pack" else next(pack.dumps({digest("a"): b"a"}))[1]
    oid = put(store, text)
    if damage == "missing":
        del store.objects[oid]
    elif damage == "corrupt":
        store.objects[oid] = text[:-1] + b"b"
    blobs = Blobs([Stored("pack", oid, len(text))], store)
    assert not blobs.holds(digest("a"))
    with pytest.raises(ObjectError):
        read(blobs, digest("a"))


# -- what they cost --------------------------------------------------------------------------------------------------


def test_the_longest_chain_is_read() -> None:
    store = MemoryStore()
    lines, data = chain(store, MAX_WORK)
    blobs = Blobs(lines, store)
    assert blobs.work(Digest.of(data)) == MAX_WORK
    assert read(blobs, Digest.of(data)) == data


def test_a_longer_chain_is_refused() -> None:
    store = MemoryStore()
    lines, data = chain(store, MAX_WORK + 1)
    with pytest.raises(CorruptObject):
        read(Blobs(lines, store), Digest.of(data))


HOSTILE: dict[str, Callable[[], list[Stored]]] = {
    "its own base": lambda: [line(digest(0), digest(0))],
    "a cycle of two": lambda: [line(digest(0), digest(1)), line(digest(1), digest(0))],
    "a cycle further on": lambda: [line(digest(0), digest(1)), line(digest(1), digest(2)), line(digest(2), digest(1))],
    "a cycle beside": lambda: [line(digest(0), digest(8), digest(1)), line(digest(1), digest(9), digest(1))],
    "a long chain": lambda: [line(digest(at), digest(at + 1)) for at in range(100_000)],
    "diamonds": lambda: [line(digest(at), digest(at + 1), digest(at + 1)) for at in range(64)],
    "many bases": lambda: [line(digest(0), *[digest(1)] * 100_000), line(digest(1))],
    "a large knot": lambda: [line(digest(at), *(digest(base) for base in range(100))) for at in range(100)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_come_to_an_end(name: str) -> None:
    blobs = Blobs(HOSTILE[name](), MemoryStore())
    assert blobs.work(digest(0)) == float("inf")
    with pytest.raises(CorruptObject):
        read(blobs, digest(0))
    needed = blobs.closure([digest(0)])
    assert len(needed) == len(set(needed))


def test_what_stands_beside_a_cycle_can_be_read() -> None:
    lines = [line(digest(0), digest(1)), line(digest(1), digest(0)), line(digest(2)), line(digest(3), digest(2))]
    blobs = Blobs(lines, MemoryStore())
    assert [blobs.work(digest(at)) for at in range(5)] == [float("inf"), float("inf"), 1, 2, 0]


def test_the_work_of_a_sum_is_that_of_all_its_terms() -> None:
    lines = [line(digest("sum"), *(digest(at) for at in range(9))), *(line(digest(at)) for at in range(9))]
    assert Blobs(lines, MemoryStore()).work(digest("sum")) == 10


def test_no_thread_mistakes_anothers_search_for_a_cycle() -> None:
    """While one thread walks along a chain, others ask for blobs in the middle of it."""
    lines = [line(digest(at), digest(at + 1)) for at in range(MAX_WORK)]
    answers: list[float] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            blobs = Blobs(lines, MemoryStore())
            threads = [Thread(target=lambda at=at: answers.append(blobs.work(digest(at)))) for at in (0, 1, 2, 50)]  # noqa: B023
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert set(answers) == {MAX_WORK, MAX_WORK - 1, MAX_WORK - 2, MAX_WORK - 50}

"""Places: how a blob can be had, when several objects, manifests and memories have something to say about it."""

from __future__ import annotations

import dataclasses

import pytest
from test_encoded import close, dumps, numbers

from git_theta_btm import pack
from git_theta_btm.blobs import MAX_WORK, Blobs
from git_theta_btm.encoded import Header
from git_theta_btm.filters.places import Places
from git_theta_btm.manifest import PACKED, Blob, Digest, Manifest, Stored
from git_theta_btm.store import Forgetful, MemoryStore, put

ROWS = 10 * PACKED // 4  # elements of a tensor whose delta is no small object


def digest(name: object) -> Digest:
    return Digest.of(str(name).encode())


def manifest(*lines: Stored) -> Manifest:
    return Manifest("safetensors", 0, Blob(digest("layout"), 1), (), (), tuple(sorted(lines)))


class Scene:
    """A store and a memory in which lines are easily made up: their objects are random bytes of the right size."""

    def __init__(self) -> None:
        self.store, self.memory = MemoryStore(), Forgetful()

    def line(self, blob: object, *bases: object, kind: str = "delta") -> Stored:
        data = f"{kind} {blob} {bases}".encode() * PACKED
        return Stored(kind, put(self.store, data), len(data), (digest(blob), *map(digest, bases)))

    def learn(self, *lines: Stored) -> None:
        self.memory.learn_stored((Digest(line.rest[0]), line) for line in lines)

    def raw(self, *names: str) -> None:
        self.store.objects |= {digest(name): name.encode() for name in names}

    def places(self, *lines: Stored) -> Places:
        return Places(self.store, self.memory, [manifest(*lines)])


@pytest.fixture
def scene() -> Scene:
    return Scene()


def raw(name: str) -> Stored:
    return Stored("raw", digest(name), len(name))


def test_nothing_is_known(scene: Scene) -> None:
    assert scene.places().find(digest("a")) is None


def test_a_raw_object(scene: Scene) -> None:
    scene.raw("a")
    assert scene.places().find(digest("a")) == {raw("a")}


def test_bases_and_their_bases(scene: Scene) -> None:
    lines = [scene.line("a", "b"), scene.line("b", "c")]
    scene.learn(*lines)
    scene.raw("c")
    assert scene.places().find(digest("a")) == {*lines, raw("c")}


@pytest.mark.parametrize("known_by", ["memory", "manifest"])
def test_a_base_or_an_object_that_is_gone(scene: Scene, known_by: str) -> None:
    lines = [scene.line("a", "b"), scene.line("b", "c")]
    if known_by == "memory":
        scene.learn(*lines)
    places = scene.places(*(lines if known_by == "manifest" else ()))
    assert places.find(digest("a")) is None
    scene.raw("c")
    assert places.find(digest("a")) == {*lines, raw("c")}
    del scene.store.objects[lines[1].oid]
    assert scene.places(*lines).find(digest("a")) is None
    scene.store.objects[lines[1].oid] = b"of another size"
    assert scene.places(*lines).find(digest("a")) is None


def test_what_was_made_wins_then_memory_then_raw_then_a_manifest(scene: Scene) -> None:
    """What a manifest says of an object is proven by nothing: anyone may have written it."""
    made, remembered, listed = (scene.line("a", kind=kind) for kind in ("dense", "future", "delta"))
    places = scene.places(listed)
    assert places.find(digest("a")) == {listed}
    scene.raw("a")
    assert scene.places(listed).find(digest("a")) == {raw("a")}
    scene.learn(remembered)
    places = scene.places(listed)
    assert places.find(digest("a")) == {remembered}
    places.made(digest("a"), made)
    assert places.find(digest("a")) == {made}
    del scene.store.objects[made.oid]
    places.made(digest("b"), made)
    assert places.find(digest("a")) == {remembered}


def test_earlier_manifests_win(scene: Scene) -> None:
    first, second = scene.line("a", kind="dense"), scene.line("a", kind="future")
    assert Places(scene.store, scene.memory, [manifest(first), manifest(second)]).find(digest("a")) == {first}


# -- packs -----------------------------------------------------------------------------------------------------------


def packed(scene: Scene, members: dict[Digest, bytes]) -> Stored:
    ((_, data),) = pack.dumps(members)
    return Stored("pack", put(scene.store, data), len(data))


def test_a_small_blob_is_in_a_pack(scene: Scene) -> None:
    held = packed(scene, {digest("a"): b"a"})
    assert scene.places(held).find(digest("a")) == {held}
    scene.memory.learn_stored([(digest("a"), held)])
    assert scene.places().find(digest("a")) == {held}
    del scene.store.objects[held.oid]
    assert scene.places(held).find(digest("a")) is None


def test_a_small_object_is_in_a_pack(scene: Scene) -> None:
    data = b"a small object"
    line = Stored("dense", Digest.of(data), len(data), (digest("a"),))
    held = packed(scene, {line.oid: data})
    assert scene.places(held, line).find(digest("a")) == {held, line}
    assert scene.places(line).find(digest("a")) is None


def test_a_pack_that_lies_about_a_blob_serves_for_nothing(scene: Scene) -> None:
    liar = packed(scene, {digest("a"): b"something else", digest("b"): b"b"})
    assert scene.places(liar).find(digest("a")) is None
    assert scene.places(liar).find(digest("b")) == {liar}
    honest = packed(scene, {digest("a"): b"a"})
    assert scene.places(liar, honest).find(digest("a")) == {honest}


# -- loops and limits ------------------------------------------------------------------------------------------------


def test_a_blob_is_never_found_through_itself(scene: Scene) -> None:
    """Each of two blobs was once stored in terms of the other. One of the two ways must be given up."""
    lines = [scene.line("a", "b"), scene.line("b", "a")]
    scene.learn(*lines)
    assert scene.places().find(digest("a")) is None
    scene.raw("b")
    assert scene.places().find(digest("a")) == {lines[0], raw("b")}
    assert scene.places().find(digest("b")) == {raw("b")}
    scene.raw("a")
    for first, second in ("ab", "ba"):
        places = scene.places()
        found = (places.find(digest(first)) or frozenset()) | (places.find(digest(second)) or frozenset())
        blobs = Blobs(found, scene.store)
        assert max(blobs.work(digest("a")), blobs.work(digest("b"))) == 1


def test_a_way_that_failed_inside_a_loop_is_tried_again_outside(scene: Scene) -> None:
    scene.learn(scene.line("a", "b"), scene.line("b", "a"))
    scene.raw("a")
    places = scene.places()
    assert places.find(digest("a")) == {raw("a")}
    assert places.find(digest("b")) == {scene.line("b", "a"), raw("a")}


@pytest.mark.parametrize("bottom", ["missing", "raw", "top"])
def test_diamonds_take_no_longer_than_they_have_edges(scene: Scene, bottom: str) -> None:
    """Sixty-four levels, each named twice by the one above: 2**64 paths lead down."""
    lines = [scene.line(at, at + 1, at + 1) for at in range(64)]
    if bottom == "raw":
        scene.raw("64")
    elif bottom == "top":
        lines.append(scene.line(64, 0, 0))
    places = scene.places(*lines)
    assert places.find(digest(0)) is None
    assert places.find(digest(1)) is None
    assert (places.find(digest(62)) is None) == (bottom != "raw")


@pytest.mark.parametrize("order", [1, -1])
def test_a_chain_is_found_as_far_as_it_can_be_read(scene: Scene, order: int) -> None:
    """From whichever end one begins to look."""
    lines = [scene.line(at, at + 1) for at in range(3 * MAX_WORK)]
    scene.raw(str(3 * MAX_WORK))
    places = scene.places(*lines)
    for at in range(3 * MAX_WORK + 1)[::order]:
        assert (places.find(digest(at)) is not None) == (3 * MAX_WORK - at <= MAX_WORK)


def test_a_knot_comes_to_an_end(scene: Scene) -> None:
    lines = [scene.line(at, *range(60)) for at in range(60)]
    places = scene.places(*lines)
    assert all(places.find(digest(at)) is None for at in range(0, 60, 20))


def test_what_is_found_can_be_read(scene: Scene) -> None:
    data = [numbers(4 * ROWS)]
    put(scene.store, data[0])
    for kind in ("delta", "delta"):
        text = dumps(close(data[-1]), Header(kind, 4, 4 * ROWS, {}), [data[-1]])
        base, changed = Digest.of(data[-1]), close(data[-1])
        scene.learn(Stored(kind, put(scene.store, text), len(text), (Digest.of(changed), base)))
        data.append(changed)
    lines = scene.places().find(Digest.of(data[-1]))
    with Blobs(lines or (), scene.store).open(Digest.of(data[-1])) as source:
        assert source.read(0, source.size) == data[-1]


def test_a_broken_pack_is_passed_over(scene: Scene) -> None:
    held = packed(scene, {digest("a"): b"a"})
    scene.store.objects[held.oid] = b"?" * held.size
    missing = dataclasses.replace(held, oid=digest("nothing"))
    assert scene.places(held, missing).find(digest("a")) is None

"""Encode: every tensor comes back from the cheapest object found for it, which depends on nothing that is wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_blobs import chain
from test_clean_smudge import rebuilt
from test_encoded import close, dumps, numbers, written

from git_theta_btm import pack
from git_theta_btm.blobs import MAX_WORK, Blobs
from git_theta_btm.encoded import CHUNK, Header
from git_theta_btm.errors import CorruptObject, ManifestError, MissingObject, ObjectError, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.filters.encode import Candidate, Encoder, Encoding, Scribe, offer, width_of
from git_theta_btm.filters.identify import LONG, TINY, Surroundings
from git_theta_btm.floats import MANTISSA
from git_theta_btm.layout import Layout
from git_theta_btm.manifest import PACKED, Blob, Digest, Entry, Manifest, Stored, loads
from git_theta_btm.source import BytesSource
from git_theta_btm.store import Forgetful, MemoryStore, put
from git_theta_btm.tensor import DTYPES, Tensor
from git_theta_btm.updates import Span
from git_theta_btm.updates.linear import predict


def name(data: bytes) -> Digest:
    return Digest.of(data)


def blob(data: bytes) -> Blob:
    return Blob(name(data), len(data))


def tensor_of(data: bytes, dtype: str = "F32") -> Tensor:
    kind = DTYPES[dtype]
    return Tensor(kind, (len(data) // kind.size * kind.block,))


class Scene:
    """A store, a memory, and all objects that were made."""

    def __init__(self) -> None:
        self.store, self.memory, self.lines = MemoryStore(), Forgetful(), list[Stored]()

    @property
    def blobs(self) -> Blobs:
        return Blobs(self.lines, self.store)

    def scribe(self, data: bytes) -> Scribe:
        return Scribe(BytesSource(data), self.blobs, self.store, self.memory)

    def write(self, data: bytes, candidate: Candidate, dtype: str = "F32") -> Stored | None:
        encoding = self.scribe(data).write(0, len(data), width_of(tensor_of(data, dtype)), candidate)
        return self.note(encoding)

    def note(self, encoding: Encoding | None) -> Stored | None:
        if encoding and encoding.stored:
            self.lines.append(encoding.stored)
            return encoding.stored
        return None

    def read(self, digest: Digest) -> bytes:
        with self.blobs.open(digest) as source:
            return source.read(0, source.size)

    def encode(
        self, data: bytes, parent: Manifest | None = None, mode: str = "fast", dtype: str = "F32"
    ) -> Stored | None:
        """The object that is chosen for the parameter ``w``; None if it is to be raw."""
        encoder = Encoder(self.scribe(data), parent, mode)
        return self.note(encoder.encode(0, len(data), tensor_of(data, dtype), "w"))

    def parent(self, data: bytes, dtype: str = "F32") -> Manifest:
        """A version in which the parameter ``w`` is ``data``."""
        return version(Entry("w", tensor_of(data, dtype), name(data)), *self.lines)


def version(entry: Entry, *lines: Stored) -> Manifest:
    return Manifest("safetensors", 0, Blob(name(b"layout"), 1), (entry,), (), tuple(sorted(lines)))


@pytest.fixture
def scene() -> Scene:
    return Scene()


# -- every type, every kind of data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_comes_back(scene: Scene, dtype: str) -> None:
    """Alone, as a change of another tensor, and grouped where it is a float; a few elements, and many."""
    for count in (1, 2, 700):
        size = count * DTYPES[dtype].size
        base = np.random.default_rng(count).bytes(size)
        put(scene.store, base)
        scene.write(base[::-1], Candidate(), dtype)
        assert scene.read(name(base[::-1])) == base[::-1]
        for position, group in enumerate({None, MANTISSA.get(dtype)}):
            changed = bytearray(base)
            changed[(size - 1) // 2] ^= 1 + position
            line = scene.write(bytes(changed), Candidate("delta", (blob(base),), group=group), dtype)
            assert scene.read(name(bytes(changed))) == changed
            assert line is None or line.rest[1:] == (name(base),)


@pytest.mark.parametrize(
    ("dtype", "width"), [("BF16", 2), ("C32", 2), ("C64", 4), ("C128", 8), ("Q4_0", 1), ("F6_E2M3", 1)]
)
def test_widths_are_those_of_single_numbers(dtype: str, width: int) -> None:
    assert width_of(Tensor(DTYPES[dtype], (DTYPES[dtype].block,))) == width
    assert width_of(None) == 1


@settings(max_examples=100)
@given(st.data(), st.sampled_from(sorted(DTYPES)))
def test_any_bytes_come_back(data: st.DataObject, dtype: str) -> None:
    scene = Scene()
    unit = DTYPES[dtype].size
    base = data.draw(st.binary(min_size=unit, max_size=unit + 64)) * data.draw(st.sampled_from([1, 300]))
    base = base[: len(base) // unit * unit]
    changed = bytearray(base)
    for at, value in data.draw(st.dictionaries(st.integers(0, len(base) - 1), st.integers(0, 255), max_size=9)).items():
        changed[at] = value
    put(scene.store, base)
    group = data.draw(st.sampled_from([None, 0, 7 % (8 * width_of(tensor_of(base, dtype)))]))
    scene.write(bytes(changed), Candidate("delta", (blob(base),), group=group), dtype)
    assert scene.read(name(bytes(changed))) == changed


def weights(size: int, dtype: str) -> bytes:
    values = np.random.default_rng(0).normal(0, 0.02, size // DTYPES[dtype].size)
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("mode", ["fast", "small"])
@pytest.mark.parametrize("size", [PACKED, PACKED + 8, 1 << 20, CHUNK - 8, CHUNK + 8])
def test_floats_of_all_sizes(scene: Scene, dtype: str, mode: str, size: int) -> None:
    base = weights(size, dtype)
    put(scene.store, base)
    changed = close(base, DTYPES[dtype].size)
    line = scene.encode(changed, scene.parent(base, dtype), mode, dtype)
    assert line is not None
    assert line.kind == "delta"
    assert line.size < 0.8 * size
    assert scene.read(name(changed)) == changed


def test_a_long_tensor_is_encoded_by_several_threads(scene: Scene) -> None:
    base = weights(LONG + CHUNK + 8, "BF16")
    put(scene.store, base)
    changed = close(base, 2)
    line = scene.encode(changed, scene.parent(base, "BF16"), dtype="BF16")
    assert line is not None
    assert scene.read(name(changed)) == changed
    expected = dumps(changed, Header("delta", 2, len(changed), {}), [base])
    assert line.oid == name(expected)


# -- what is chosen --------------------------------------------------------------------------------------------------


def test_what_does_not_shrink_stays_raw(scene: Scene) -> None:
    noise = np.random.default_rng(0).bytes(1 << 20)
    assert scene.encode(noise) is None
    other = np.random.default_rng(1).bytes(1 << 20)
    put(scene.store, other)
    assert scene.encode(noise, scene.parent(other)) is None
    assert set(scene.store.objects) == {name(other)}


def test_a_base_that_does_not_help_is_not_used(scene: Scene) -> None:
    base = numbers(1 << 20, 1)
    put(scene.store, base)
    line = scene.encode(numbers(1 << 20), scene.parent(base))
    assert line is not None
    assert (line.kind, line.rest[1:]) == ("dense", ())


@pytest.mark.parametrize("change", ["dtype", "size", "name", "view"])
def test_a_base_is_of_the_same_name_type_and_size(scene: Scene, change: str) -> None:
    base = numbers(1 << 20)
    put(scene.store, base)
    entry = {
        "dtype": Entry("w", tensor_of(base, "I32"), name(base)),
        "size": Entry("w", tensor_of(base + base), name(base)),
        "name": Entry("v", tensor_of(base), name(base)),
        "view": Entry("w", tensor_of(base), name(base), view=True),
    }[change]
    line = scene.encode(close(base), version(entry))
    assert line is not None
    assert line.kind == "dense"


@pytest.mark.parametrize(
    ("mode", "expected"), [("fast", [1, 2, 3, 4, 5, 6, 4, 5, 6, 4]), ("small", [1, 2, 3, 4, 5, 6, 7, 8, 5, 6])]
)
def test_a_chain_too_long_starts_again_in_its_middle(scene: Scene, mode: str, expected: list[int]) -> None:
    data = [weights(1 << 18, "BF16")]
    put(scene.store, data[0])
    for _ in range(10):
        changed = close(data[-1], 2)
        assert scene.encode(changed, scene.parent(data[-1], "BF16"), mode, "BF16")
        data.append(changed)
    works = [scene.blobs.work(name(one)) for one in data]
    assert works == [0, *expected]
    assert all(scene.read(name(one)) == one for one in data)


def test_modes_trade_time_for_size(scene: Scene) -> None:
    before = np.random.default_rng(0).normal(0, 0.02, 1 << 20).astype("<f4")
    after = before + np.random.default_rng(1).normal(0, 2e-4, 1 << 20).astype("<f4")
    base, changed = ((one.view("<u4") >> 16).astype("<u2").tobytes() for one in (before, after))
    sizes = {"raw": len(base)}
    for mode in ("fast", "small"):
        other = Scene()
        put(other.store, base)
        line = other.encode(changed, other.parent(base, "BF16"), mode, "BF16")
        assert line is not None
        sizes[mode] = line.size
    assert sizes["small"] <= sizes["fast"] < 0.5 * sizes["raw"]


def test_a_few_changed_rows_cost_little_more_than_themselves(scene: Scene) -> None:
    base = numbers(20 << 20)
    put(scene.store, base)
    rows = np.frombuffer(base, "<f4").reshape(-1, 1024).copy()
    rows[[7, 1000, 1001, 3333, 5119]] = np.random.default_rng(5).normal(0, 1, (5, 1024))
    line = scene.encode(rows.tobytes(), scene.parent(base))
    assert line is not None
    assert line.size < 2 * 5 * 4096 + 4096
    assert scene.read(name(rows.tobytes())) == rows.tobytes()


def test_what_is_stored_already_is_not_stored_again(scene: Scene) -> None:
    data = numbers(1 << 20)
    assert scene.encode(data)
    before = dict(scene.store.objects)
    assert scene.encode(data) is None
    assert scene.store.objects == before


# -- bases that are not what they should be --------------------------------------------------------------------------

BASE = numbers(1 << 20)
CHANGED = close(BASE)


def test_nothing_is_built_on_a_base_that_rotted(scene: Scene) -> None:
    """It would be lost as soon as the base is repaired."""
    put(scene.store, BASE)
    scene.store.objects[name(BASE)] = BASE[:500_000] + b"?" + BASE[500_001:]
    line = scene.encode(CHANGED, scene.parent(BASE))
    assert line is not None
    assert line.kind == "dense"
    assert scene.read(name(CHANGED)) == CHANGED


@pytest.mark.parametrize("base", [b"", BASE[:-4], BASE[: 1 << 19], BASE + bytes(4)])
def test_nothing_is_built_on_a_base_of_another_length(scene: Scene, base: bytes) -> None:
    scene.store.objects[name(BASE)] = base
    line = scene.encode(CHANGED, scene.parent(BASE))
    assert line is not None
    assert line.kind == "dense"


def hostile_lines(scene: Scene) -> dict[str, list[Stored]]:
    zeros = {"chunk": CHUNK, "group": None, "kind": "dense", "parameters": {}, "size": len(BASE), "width": 4}
    text = written(zeros, bytes(4))
    liar = Stored("dense", put(scene.store, text), len(text), (name(BASE),))
    delta = dumps(BASE, Header("delta", 4, len(BASE), {}), [CHANGED])
    loop = Stored("delta", put(scene.store, delta), len(delta), (name(BASE), name(CHANGED)))
    back = Stored("delta", put(scene.store, delta + b"?"), len(delta) + 1, (name(CHANGED), name(BASE)))
    knot = Stored("delta", loop.oid, loop.size, (name(BASE), name(BASE)))
    gone = Stored("dense", name(b"gone"), 1 << 20, (name(BASE),))
    kind = written({**zeros, "kind": "future"}, bytes(4))
    return {
        "missing": [],
        "an object that is gone": [gone],
        "an object that is not it": [liar],
        "its own base": [knot],
        "a cycle": [loop, back],
        "based on what is to be stored": [loop],
        "an unknown kind": [Stored("future", put(scene.store, kind), len(kind), (name(BASE),))],
    }


@pytest.mark.parametrize("case", hostile_lines(Scene()))
def test_a_hostile_parent_changes_nothing(scene: Scene, case: str) -> None:
    """Whoever wrote the version before cannot make the next one wrong, nor keep it from being stored."""
    lines = hostile_lines(scene)[case]
    scene.lines = lines
    parent = version(Entry("w", tensor_of(BASE), name(BASE)), *lines)
    encoder = Encoder(scene.scribe(CHANGED), parent, "fast")
    encoding = encoder.encode(0, len(CHANGED), tensor_of(CHANGED), "w")
    assert encoding is not None
    assert encoding.stored is not None
    assert encoding.stored.kind == "dense"
    scene.lines = [encoding.stored]
    assert scene.read(name(CHANGED)) == CHANGED


def test_a_claim_to_hold_the_tensor_is_checked(scene: Scene) -> None:
    """A manifest may say that the new tensor is stored already, in an object that is another."""
    scene.lines = hostile_lines(scene)["an object that is not it"]
    line = scene.write(BASE, Candidate())
    assert line is not None
    assert scene.read(name(BASE)) == BASE


# -- offers ----------------------------------------------------------------------------------------------------------

TERMS = [weights(1 << 20, "BF16"), close(weights(1 << 20, "BF16"), 2), close(close(weights(1 << 20, "BF16"), 2), 2)]
THIRDS: dict[str, Any] = {"dtype": "BF16", "weights": [(1 / 3).hex()] * 3}


def average() -> bytes:
    sources = [BytesSource(term) for term in TERMS]
    return predict(Span(0, len(TERMS[0]), 2), sources, THIRDS).tobytes()


@pytest.mark.parametrize("off", [0, 1])
def test_an_offer_is_used_when_the_bytes_turn_up(scene: Scene, off: int) -> None:
    for term in TERMS:
        scene.write(term, Candidate(), "BF16")
    scene.memory.learn_stored((Digest(line.rest[0]), line) for line in scene.lines)
    before = set(scene.store.objects)
    data = bytearray(average())
    data[1000] += off
    candidate = Candidate("linear", tuple(map(blob, TERMS)), THIRDS)
    ports = (scene.store, scene.memory)
    assert offer(bytes(data), tensor_of(data, "BF16"), candidate, scene.blobs, ports) == blob(bytes(data))
    (added,) = set(scene.store.objects) - before
    assert len(scene.store.objects[added]) < (0.01 if off else 0.001) * len(data)
    file = container(bytes(data), "BF16")
    manifest = clean(BytesSource(file), scene.store, scene.memory)
    assert {line.kind for line in manifest.objects if line.encoded} == {"linear", "dense"}
    assert rebuilt(manifest, scene.store) == file


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("linear", (blob(TERMS[0]),), {}),
        Candidate("linear", (blob(TERMS[0]),), {"dtype": "BF16", "weights": [1.0]}),
        Candidate("linear", (blob(TERMS[0]),), {"dtype": "BF16", "weights": ["0x1p99999"]}),
        Candidate("linear", (blob(TERMS[0]),) * (MAX_WORK + 900), {"dtype": "BF16", "weights": ["0x1p0"] * 1000}),
        Candidate("delta", (blob(b"nowhere"),)),
        Candidate("delta", (blob(TERMS[0]), blob(TERMS[0]))),
        Candidate("delta", (Blob(name(TERMS[0]), 17),)),
        Candidate("future"),
        Candidate("dense", (), {"long": "x" * 20_000}),
        Candidate("delta", (blob(bytes(5 << 20)),)),
    ],
    ids=lambda candidate: f"{candidate.kind} of {len(candidate.bases)}",
)
def test_an_offer_that_nobody_could_read_is_refused(scene: Scene, candidate: Candidate) -> None:
    put(scene.store, TERMS[0])
    put(scene.store, bytes(5 << 20))
    before = set(scene.store.objects)
    with pytest.raises(ObjectError):
        offer(TERMS[1], tensor_of(TERMS[1], "BF16"), candidate, scene.blobs, (scene.store, scene.memory))
    assert set(scene.store.objects) == before


def test_an_offer_may_not_take_more_work_than_a_reader_does(scene: Scene) -> None:
    lines, data = chain(scene.store, MAX_WORK)
    for line, allowed in ((lines[-2], True), (lines[-1], False)):
        scene.lines = lines[: lines.index(line) + 1]
        scene.memory.learn_stored((Digest(line.rest[0]), line) for line in scene.lines)
        base = Blob(Digest(line.rest[0]), len(data))
        if allowed:
            assert scene.write(data + b"", Candidate("delta", (base,))) is not None
            assert scene.read(name(data)) == data
        else:
            with pytest.raises(ObjectError, match="decodings"):
                scene.write(close(data), Candidate("delta", (base,)))


# -- through clean and smudge ----------------------------------------------------------------------------------------


def container(data: bytes, dtype: str = "F32") -> bytes:
    """A safetensors file with one tensor, ``w``."""
    shape = [len(data) // DTYPES[dtype].size]
    header = f'{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{len(data)}]}}}}'.encode()
    return len(header).to_bytes(8, "little") + header + data


def surroundings(recorded: Manifest | None, parent: Manifest | None, mode: str = "fast") -> Surroundings:
    return Surroundings(lambda _: recorded, lambda: parent, lambda: mode)


BIG = weights(TINY + 4096, "BF16")
BIG_CHANGED = close(BIG, 2)


def test_below_a_few_megabytes_everything_is_raw(scene: Scene) -> None:
    small = weights(TINY - 4096, "BF16")
    assert [line.kind for line in clean(BytesSource(container(small, "BF16")), scene.store, scene.memory).objects] == [
        "pack"
    ]
    lines = clean(BytesSource(container(BIG, "BF16")), scene.store, scene.memory).objects
    assert [line.kind for line in lines] == ["dense", "pack"]


@pytest.mark.parametrize("mode", ["raw", "fast", "small"])
@pytest.mark.parametrize("forget", [False, True])
def test_a_version_and_the_next(scene: Scene, mode: str, forget: bool) -> None:  # noqa: FBT001
    """Whatever is remembered in between, each comes back, and is the same manifest when it is added again."""
    parent: Manifest | None = None
    made = []
    for data in (BIG, BIG_CHANGED, BIG):
        file = container(data, "BF16")
        manifest = clean(BytesSource(file), scene.store, scene.memory, surroundings(parent, parent, mode))
        assert rebuilt(manifest, scene.store) == file
        scene.memory = Forgetful() if forget else scene.memory
        again = clean(BytesSource(file), scene.store, scene.memory, surroundings(manifest, parent, mode))
        assert again.dumps() == manifest.dumps()
        made.append(manifest)
        parent = manifest
    assert made[0].digest == made[2].digest
    kinds = {line.kind for line in made[1].objects}
    assert kinds == ({"pack"} if mode == "raw" else {"pack", "delta", "dense"})


@pytest.mark.parametrize("mode", ["raw", "fast"])
@pytest.mark.parametrize("remembered", [False, True])
def test_a_recorded_manifest_that_lies_is_not_taken_over(scene: Scene, mode: str, remembered: bool) -> None:  # noqa: FBT001
    """Someone has committed the right identity with the wrong objects: adding the true file repairs it."""
    file = container(BIG, "BF16")
    honest = clean(BytesSource(file), scene.store, scene.memory)
    zeros = {"chunk": CHUNK, "group": None, "kind": "dense", "parameters": {}, "size": len(BIG), "width": 2}
    text = written(zeros, bytes(4))
    liar = Stored("dense", put(scene.store, text * PACKED), len(text) * PACKED, (name(BIG),))
    loop = Stored("delta", liar.oid, liar.size, (name(BIG), name(BIG)))
    packs = [line for line in honest.objects if line.kind == "pack"]
    for line in (liar, loop):
        lying = Manifest(honest.format, honest.size, honest.layout, honest.entries, (), tuple(sorted([*packs, line])))
        assert lying.digest == honest.digest
        with pytest.raises(ObjectError):
            rebuilt(lying, scene.store)
        memory = scene.memory if remembered else Forgetful()
        manifest = clean(BytesSource(file), scene.store, memory, surroundings(lying, lying, mode))
        assert rebuilt(manifest, scene.store) == file


def test_a_version_whose_parent_was_never_fetched(scene: Scene) -> None:
    """All its objects are missing: the next version is stored without them."""
    parent = clean(BytesSource(container(BIG, "BF16")), MemoryStore(), Forgetful())
    file = container(BIG_CHANGED, "BF16")
    manifest = clean(BytesSource(file), scene.store, scene.memory, surroundings(parent, parent))
    assert rebuilt(manifest, scene.store) == file


# -- hostile manifests -----------------------------------------------------------------------------------------------


class Patient(MemoryStore):
    """Counts how often objects are opened, and gives up in time."""

    count = 0

    @contextmanager
    def open(self, oid: Digest) -> Iterator[BytesSource]:
        self.count += 1
        assert self.count < 5000
        with super().open(oid) as source:
            yield source


def forged(store: MemoryStore, data: bytes, lines: list[Stored]) -> Manifest:
    """A file that is nothing but the tensor ``w``, stored as ``lines`` say."""
    layout = Layout((0,), (), b"").dumps()
    entry = Entry("w", tensor_of(data), name(data))
    ((_, packed),) = pack.dumps({name(layout): layout})
    held = Stored("pack", put(store, packed), len(packed))
    return Manifest("safetensors", len(data), blob(layout), (entry,), (), tuple(sorted([held, *lines])))


# A delta that changes nothing, with a plane of zeros as it is: too large for a pack.
PLANES = struct.pack("<4I", 1 << 18, 2 << 30, 2 << 30, 2 << 30) + bytes(1 << 18)
SAME = written(
    {"chunk": CHUNK, "group": None, "kind": "delta", "parameters": {}, "size": 1 << 20, "width": 4},
    PLANES + struct.pack("<I", len(PLANES)),
)
SAME_NAME = name(SAME)
LENGTH = 20_000


def link(store: MemoryStore, blob_name: Digest, *bases: Digest) -> Stored:
    """A blob that is said to be the same as its base."""
    store.objects[SAME_NAME] = SAME
    return Stored("delta", SAME_NAME, len(SAME), (blob_name, *bases))


def digest(number: int) -> Digest:
    return Digest.of(b"%d" % number) if number else name(CHANGED)


HOSTILE = {
    "its own base": lambda store: [link(store, digest(0), digest(0))],
    "a cycle of two": lambda store: [link(store, digest(0), digest(1)), link(store, digest(1), digest(0))],
    "a chain without an end": lambda store: [link(store, digest(at), digest(at + 1)) for at in range(LENGTH)],
    "diamonds": lambda store: [link(store, digest(at), digest(at + 1), digest(at + 1)) for at in range(64)],
    "a base that is missing": lambda store: [link(store, digest(0), digest(1))],
    "another tensor": lambda store: [
        Stored("dense", put(store, text), len(text), (digest(0),))
        for text in [dumps(BASE, Header("dense", 4, len(BASE), {}))]
    ],
    "a base of another size": lambda store: [link(store, digest(0), put(store, BASE[:-4]))],
    "a base that is the layout": lambda store: [link(store, digest(0), name(Layout((0,), (), b"").dumps()))],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_comes_of_a_hostile_manifest(case: str) -> None:
    store = Patient()
    manifest = forged(store, CHANGED, HOSTILE[case](store))
    with pytest.raises((CorruptObject, MissingObject, ManifestError)):
        rebuilt(manifest, store)


@pytest.mark.parametrize("case", [*HOSTILE, *hostile_lines(Scene())])
@pytest.mark.parametrize("remembered", [False, True])
def test_the_next_version_of_a_hostile_manifest_is_right(case: str, remembered: bool) -> None:  # noqa: FBT001
    """Both the file that the manifest claims to be, and a changed one, are stored so that they come back."""
    scene = Scene()
    store = scene.store = Patient()
    lines = HOSTILE[case](store) if case in HOSTILE else hostile_lines(scene)[case]
    manifest = forged(store, CHANGED, lines)
    for data in (CHANGED, BASE, close(CHANGED)) if remembered else (CHANGED, close(CHANGED)):
        file = container(data * 3)
        made = clean(BytesSource(file), store, scene.memory, surroundings(manifest, manifest))
        assert rebuilt(made, store) == file
        store.count = 0


@pytest.fixture(scope="module")
def delta() -> tuple[Manifest, MemoryStore, bytes]:
    """A version that is stored as a change of another, the store, and the file."""
    scene = Scene()
    base = weights(1 << 18, "BF16")
    data = close(base, 2)
    scene.write(base, Candidate(), "BF16")
    scene.memory.learn_stored((Digest(line.rest[0]), line) for line in scene.lines)
    offer(data, tensor_of(data, "BF16"), Candidate("delta", (blob(base),)), scene.blobs, (scene.store, scene.memory))
    manifest = clean(BytesSource(container(data, "BF16")), scene.store, scene.memory)
    assert {line.kind for line in manifest.objects} == {"pack", "dense", "delta"}
    return manifest, scene.store, container(data, "BF16")


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_store_never_yields_a_wrong_byte(
    delta: tuple[Manifest, MemoryStore, bytes], data: st.DataObject
) -> None:
    """Whichever byte of whichever object is damaged, the file is whole and right, or it is not written."""
    manifest, whole, file = delta
    store = MemoryStore()
    store.objects = dict(whole.objects)
    oid = data.draw(st.sampled_from(sorted(store.objects)))
    damaged = bytearray(store.objects[oid])
    at = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, min(250, len(damaged) - 1)))
    damaged[at] = data.draw(st.integers(0, 255))
    store.objects[oid] = bytes(damaged[: data.draw(st.sampled_from([len(damaged), len(damaged), at]))])
    try:
        assert rebuilt(manifest, store) == file
    except ThetaError:
        assert store.objects[oid] != whole.objects[oid]


# -- manifests from before there were encoded objects ----------------------------------------------------------------


def test_a_manifest_without_encoded_lines_still_loads(scene: Scene) -> None:
    """The golden manifest as a version without them would have written it: the identity is the same."""
    text = (Path(__file__).parent.parent / "golden" / "manifest-1.txt").read_bytes()
    lines = text.splitlines(keepends=True)
    plain = b"".join(line for line in lines if not line.startswith((b"object delta", b"object dense", b"object raw")))
    manifest = loads(plain)
    assert manifest.dumps() == plain
    assert manifest.digest == loads(text).digest
    assert not Blobs(manifest.objects, scene.store).lines
    assert {one.digest for one in manifest.blobs() if not one.packed} <= {one.digest for one in manifest.needs()}

"""The two laws of the filters: what is cleaned and smudged, or smudged and cleaned, is what it was, byte for byte."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from git_theta_btm import pack
from git_theta_btm.errors import CorruptObject, FormatError, ManifestError, MissingObject, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.filters.identify import Surroundings
from git_theta_btm.filters.smudge import smudge
from git_theta_btm.layout import Layout
from git_theta_btm.manifest import PACKED, Blob, Digest, Entry, Manifest, Stored, loads
from git_theta_btm.source import BLOCK, BytesSource
from git_theta_btm.store import DiskStore, Forgetful, MemoryStore, ObjectStore, get, put
from git_theta_btm.tensor import DTYPES, Tensor

SIZES = {
    "BOOL": 1,
    "U8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "F32": 4,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}


def rebuilt(manifest: Manifest, store: ObjectStore, memory: Forgetful | None = None) -> bytes:
    """The file of a manifest."""
    pour = smudge(manifest, store, memory or Forgetful())
    with TemporaryFile() as file:
        pour(file.fileno())
        file.seek(0)
        return file.read()


def cleaned(data: bytes, store: ObjectStore | None = None, memory: Forgetful | None = None) -> Manifest:
    return clean(BytesSource(data), store or MemoryStore(), memory or Forgetful())


def container(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def state(count: int, size: int = 10_000, seed: int = 0) -> dict[str, np.ndarray]:
    """``count`` tensors of ``size`` random numbers each."""
    numbers = np.random.default_rng(seed)
    return {f"h.{index}.weight": numbers.standard_normal(size, dtype="f4") for index in range(count)}


def tensor_bytes(store: MemoryStore) -> int:
    """Bytes of all objects that hold one tensor or chunk each."""
    return sum(len(data) for data in store.objects.values() if not data.startswith(b"git-theta-btm "))


@st.composite
def checkpoints(draw: st.DrawFn) -> bytes:
    """safetensors files with tensors of any dtype and shape, side by side, or anywhere."""
    names = draw(
        st.lists(
            st.one_of(st.text(max_size=8), st.from_regex("h\\.[0-9]{1,2}\\.w", fullmatch=True)), unique=True, max_size=6
        )
    )
    packed = draw(st.booleans())
    header: dict[str, Any] = {"__metadata__": {"format": draw(st.text(max_size=5))}} if draw(st.booleans()) else {}
    end = 0
    for name in names:
        if name == "__metadata__":
            continue
        dtype = draw(st.sampled_from(sorted(SIZES)))
        shape = draw(st.lists(st.integers(0, 5), max_size=3))
        size = math.prod(shape) * SIZES[dtype]
        begin = end if packed else draw(st.integers(0, 200))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}
        end = max(end, begin + size)
    data = draw(st.binary(min_size=end, max_size=end))
    return container(header, data + draw(st.sampled_from([b"", b"more"])))


# -- smudge(clean(f)) == f -------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(checkpoints())
def test_a_checkpoint_comes_back(data: bytes) -> None:
    store = MemoryStore()
    manifest = cleaned(data, store)
    assert manifest.format == "safetensors"
    assert rebuilt(manifest, store) == data
    assert loads(manifest.dumps()) == manifest


@given(st.binary(min_size=1, max_size=300))
@example(b"PK\x03\x04")
@example(b"\x93NUMPY\x01\x00\xff\xff")
@example(b"GGUF" + b"\xff" * 60)
@example(b"\x89HDF\r\n\x1a\n" + b"\0" * 50)
@example(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80")
@example(struct.pack("<Q", 1 << 60) + b"{")
@example(struct.pack("<Q", 2) + b"{}")
@example(struct.pack("<Q", 300_000) + b'{"a":' + b"[" * 299_000)
def test_any_bytes_come_back(data: bytes) -> None:
    store = MemoryStore()
    assert rebuilt(cleaned(data, store), store) == data


@pytest.mark.parametrize("size", [1, PACKED, PACKED + 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, 20_000_000])
@pytest.mark.parametrize("kind", ["zeros", "random"])
def test_files_that_no_format_explains(size: int, kind: str) -> None:
    data = bytes(size) if kind == "zeros" else np.random.default_rng(size).bytes(size)
    store = MemoryStore()
    manifest = cleaned(data, store)
    assert manifest.format == "opaque"
    assert rebuilt(manifest, store) == data


def test_an_insertion_into_an_opaque_file_adds_few_bytes() -> None:
    data = np.random.default_rng(0).bytes(40 << 20)
    store, memory = MemoryStore(), Forgetful()
    cleaned(data, store, memory)
    before = tensor_bytes(store)
    middle = 17_000_001
    cleaned(data[:middle] + b"inserted" + data[middle:], store, memory)
    assert tensor_bytes(store) - before < 17 << 20


def test_tied_overlapping_and_empty_tensors() -> None:
    data = np.random.default_rng(0).bytes(300_000)
    header = {
        "whole": {"dtype": "U8", "shape": [200_000], "data_offsets": [0, 200_000]},
        "half": {"dtype": "F32", "shape": [25_000], "data_offsets": [0, 100_000]},
        "middle": {"dtype": "U8", "shape": [100_000], "data_offsets": [50_000, 150_000]},
        "tied.1": {"dtype": "U8", "shape": [100_000], "data_offsets": [200_000, 300_000]},
        "tied.2": {"dtype": "F16", "shape": [50_000], "data_offsets": [200_000, 300_000]},
        "empty": {"dtype": "F32", "shape": [0, 7], "data_offsets": [123, 123]},
    }
    store = MemoryStore()
    manifest = cleaned(container(header, data), store)
    assert rebuilt(manifest, store) == container(header, data)
    assert {entry.name for entry in manifest.entries if entry.view} == {"whole", "half", "middle"}
    digests = {entry.name: entry.digest for entry in manifest.entries}
    assert digests["half"] == Digest.of(data[:100_000])
    assert digests["middle"] == Digest.of(data[50_000:150_000])
    assert digests["tied.1"] == digests["tied.2"]
    assert tensor_bytes(store) == 300_000


def test_ten_thousand_overlapping_tensors_take_time_in_proportion() -> None:
    """Hashing each view would read 10 GB of this file of 1 MB."""
    header = {
        f"v.{index}": {"dtype": "U8", "shape": [1_000_000], "data_offsets": [index, index + 1_000_000]}
        for index in range(10_000)
    }
    data = container(header, bytes(1_010_000))
    store = MemoryStore()
    started = time.perf_counter()
    assert rebuilt(clean(FrugalSource(data, 40 * len(data)), store, Forgetful()), store) == data
    assert time.perf_counter() - started < 20


class FrugalSource(BytesSource):
    """Lets no more than so many bytes be read."""

    def __init__(self, data: bytes, budget: int) -> None:
        super().__init__(data)
        self.budget = budget

    def readinto(self, offset: int, buffer: memoryview) -> None:
        self.budget -= len(buffer)
        assert self.budget > 0
        super().readinto(offset, buffer)


@pytest.mark.parametrize("name", ["\ud83d\ude00", "\ud800", "a b\nc", "\u202e", "é"])
def test_names_that_only_a_pickle_can_have(name: str) -> None:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({name: torch.ones(3), "\U0001f600": torch.zeros(3)}, file)
    store = MemoryStore()
    manifest = cleaned(file.getvalue(), store)
    assert loads(manifest.dumps()) == manifest
    assert rebuilt(manifest, store) == file.getvalue()


# -- clean(smudge(m)) == m -------------------------------------------------------------------------------------------


@given(checkpoints(), checkpoints())
def test_a_manifest_comes_back_if_it_is_remembered(data: bytes, other: bytes) -> None:
    store, memory = MemoryStore(), Forgetful()
    cleaned(other, store, memory)
    manifest = cleaned(data, store, memory)
    memory = Forgetful()
    file = rebuilt(manifest, store, memory)
    assert (
        clean(BytesSource(file), store, memory, Surroundings(recorded=lambda _: manifest)).dumps() == manifest.dumps()
    )


@given(checkpoints())
def test_a_manifest_made_twice_is_the_same(data: bytes) -> None:
    store, memory = MemoryStore(), Forgetful()
    first = cleaned(data, store, memory)
    count = len(store.objects)
    assert cleaned(data, store, memory) == first
    assert cleaned(data, store) == first
    assert cleaned(data) == first
    assert len(store.objects) == count


def test_a_manifest_that_packs_otherwise_is_kept() -> None:
    store, memory = MemoryStore(), Forgetful()
    data = save(state(3, 10))
    plain = cleaned(data, store, memory)
    blobs = {blob.digest: get_packed(plain, store, blob.digest) for blob in plain.blobs()}
    objects = tuple(
        sorted(
            Stored("pack", put(store, text), len(text))
            for digest in blobs
            for _, text in pack.dumps({digest: blobs[digest]})
        )
    )
    other = Manifest(plain.format, plain.size, plain.layout, plain.entries, plain.chunks, objects)
    assert other.digest == plain.digest
    assert rebuilt(other, store) == data
    assert clean(BytesSource(data), store, memory, Surroundings(recorded=lambda _: other)) == other
    assert clean(BytesSource(data), store, Forgetful(), Surroundings(recorded=lambda _: other)) == other


def get_packed(manifest: Manifest, store: ObjectStore, digest: Digest) -> bytes:
    return next(
        blobs[digest]
        for stored in manifest.objects
        if digest in (blobs := pack.loads(get(store, stored.oid, stored.size)))
    )


def test_a_remembered_manifest_whose_objects_are_gone_serves_for_nothing() -> None:
    store, memory = MemoryStore(), Forgetful()
    data = save(state(3))
    manifest = cleaned(data, store, memory)
    store.objects.clear()
    assert clean(BytesSource(data), store, memory, Surroundings(recorded=lambda _: manifest)) == manifest
    assert rebuilt(manifest, store) == data


# -- nothing is stored twice -----------------------------------------------------------------------------------------


def grown(store: MemoryStore, memory: Forgetful, *files: bytes) -> tuple[int, int]:
    """How many bytes of tensors, and of everything else, some more files add."""
    tensors, total = tensor_bytes(store), sum(map(len, store.objects.values()))
    for data in files:
        assert rebuilt(cleaned(data, store, memory), store) == data
    added = tensor_bytes(store) - tensors
    return added, sum(map(len, store.objects.values())) - total - added


def test_key_order_metadata_and_shards_add_no_tensor_bytes() -> None:
    tensors = state(12) | {f"h.{index}.bias": np.arange(100, dtype="f4") + index for index in range(12)}
    store, memory = MemoryStore(), Forgetful()
    cleaned(save(tensors), store, memory)
    assert tensor_bytes(store) == 12 * 40_000
    header = json.loads((text := save(tensors))[8 : 8 + int.from_bytes(text[:8], "little")])
    data = text[8 + int.from_bytes(text[:8], "little") :]
    assert grown(store, memory, container(dict(reversed(header.items())), data))[0] == 0
    assert grown(store, memory, save(tensors, {"note": "other metadata"}))[0] == 0
    half = dict(list(tensors.items())[:13]), dict(list(tensors.items())[13:])
    added, more = grown(store, memory, save(half[0]), save(half[1]))
    assert added == 0
    assert more < 5000


def test_another_container_adds_no_tensor_bytes() -> None:
    torch = pytest.importorskip("torch")
    tensors = state(12) | {"bias": np.arange(100, dtype="f4")}
    store, memory = MemoryStore(), Forgetful()
    cleaned(save(tensors), store, memory)
    zipped, legacy, npz = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, zipped)
    torch.save(
        {"state": {name: torch.from_numpy(array) for name, array in tensors.items()}, "step": 7},
        legacy,
        _use_new_zipfile_serialization=False,
    )
    np.savez(npz, **tensors)
    for file in (zipped, legacy, npz):
        added, more = grown(store, memory, file.getvalue())
        assert added == 0
        assert more < 12_000


def test_two_branches_store_what_differs_and_no_more() -> None:
    seed = state(150, 5000)
    store, memory = MemoryStore(), Forgetful()
    cleaned(save(seed), store, memory)
    before = dict(store.objects)
    assert len(before) == 150 + 1
    legal = seed | {name: seed[name] + 1 for name in ("h.3.weight", "h.77.weight")}
    assert rebuilt(cleaned(save(legal), store, memory), store) == save(legal)
    added = {oid: len(data) for oid, data in store.objects.items() if oid not in before}
    assert len(added) == 2  # the layout is the same, and so is its pack
    assert sum(added.values()) <= 2 * 20_000


def test_one_unit_in_the_last_place_is_a_change() -> None:
    seed = state(3)
    changed = {name: array.copy() for name, array in seed.items()}
    changed["h.1.weight"][7] = np.nextafter(changed["h.1.weight"][7], np.float32(9))
    store, memory = MemoryStore(), Forgetful()
    old, new = cleaned(save(seed), store, memory), cleaned(save(changed), store, memory)
    assert [left.name for left, right in zip(old.entries, new.entries, strict=True) if left != right] == ["h.1.weight"]
    assert rebuilt(new, store) == save(changed)


@pytest.mark.parametrize("bits", [0x7FC00001, 0xFFC00000, 0x7F800001, 0x80000000, 0x00000001])
def test_every_bit_pattern_survives(bits: int) -> None:
    array = np.full(10_000, bits, "u4").view("f4")
    store = MemoryStore()
    manifest = cleaned(save({"x": array}), store)
    assert rebuilt(manifest, store) == save({"x": array})
    assert manifest.entries[0].digest == Digest.of(struct.pack("<I", bits) * 10_000)


def test_the_digest_is_that_of_the_tensors_bytes() -> None:
    tensors = state(2)
    manifest = cleaned(save(tensors))
    assert {entry.name: entry.digest for entry in manifest.entries} == {
        name: Digest.of(array.tobytes()) for name, array in tensors.items()
    }


# -- objects that are missing or wrong -------------------------------------------------------------------------------


def test_a_missing_object_is_named_with_its_parameter() -> None:
    store = MemoryStore()
    manifest = cleaned(save(state(5)), store)
    missing = manifest.entries[3]
    del store.objects[missing.digest]
    with pytest.raises(MissingObject, match=f"h.3.weight.*{missing.digest}"):
        smudge(manifest, store, Forgetful())


def test_every_missing_object_is_noticed() -> None:
    store = MemoryStore()
    manifest = cleaned(save(state(5)), store)
    for oid in list(store.objects):
        data = store.objects.pop(oid)
        with pytest.raises(MissingObject, match=oid):
            smudge(manifest, store, Forgetful())
        store.objects[oid] = data


@pytest.mark.parametrize("known", [True, False])
def test_every_wrong_byte_is_noticed(known: bool) -> None:  # noqa: FBT001
    store, memory = MemoryStore(), Forgetful()
    manifest = cleaned(save(state(3) | {"bias": np.ones(3)}), store, memory)
    for oid, data in list(store.objects.items()):
        for at in (0, len(data) // 2, len(data) - 1):
            store.objects[oid] = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
            with pytest.raises(CorruptObject, match=oid):
                smudge(manifest, store, memory if known else Forgetful())
        for wrong in (b"", data[:-1], data + b"\0"):
            store.objects[oid] = wrong
            with pytest.raises(CorruptObject, match=oid):
                smudge(manifest, store, memory if known else Forgetful())
        store.objects[oid] = data


# -- manifests that someone made up ----------------------------------------------------------------------------------


def forged(
    store: MemoryStore, layout: Layout, entries: tuple[Entry, ...] = (), size: int = 10, **more: Any
) -> Manifest:
    text = layout.dumps()
    small = {Digest.of(text): text} | {Digest.of(data): data for data in more.pop("blobs", [])}
    ((_, packed),) = pack.dumps(small)
    objects = (Stored("pack", put(store, packed), len(packed)),)
    return Manifest("safetensors", size, Blob(Digest.of(text), len(text)), entries, **{"objects": objects, **more})


def entry(name: str, data: bytes, size: int | None = None) -> Entry:
    return Entry(name, Tensor(DTYPES["U8"], (len(data) if size is None else size,)), Digest.of(data))


def test_a_made_up_manifest_that_is_right() -> None:
    store = MemoryStore()
    manifest = forged(store, Layout((2,), (), b"<>" + b"[]"), (entry("a", b"abcdef"),), blobs=[b"abcdef"])
    assert rebuilt(manifest, store) == b"<>abcdef[]"


@pytest.mark.parametrize(
    ("layout", "entries", "size"),
    [
        (Layout((), (), b""), (), 10),
        (Layout((), (), b""), (), 1 << 62),
        (Layout((0, 3), (), b"12"), (entry("a", b"aaaaa"), entry("b", b"bbbbb")), 10),
        (Layout((0,), (), b"1234567890"), (entry("a", b"aaaaa"),), 10),
        (Layout((1 << 61,), (), b"12345"), (entry("a", b"aaaaa"),), 10),
        (Layout((0, 0), (), b"12345"), (entry("a", b"aaaaa"),), 10),
        (Layout((0,), (5,), b"12345"), (entry("a", b"aaaaa"),), 10),
    ],
)
def test_layouts_that_do_not_fit(layout: Layout, entries: tuple[Entry, ...], size: int) -> None:
    store = MemoryStore()
    with pytest.raises(ManifestError):
        smudge(forged(store, layout, entries, size, blobs=[b"aaaaa", b"bbbbb"]), store, Forgetful())


def test_blobs_of_another_size_than_the_manifest_says() -> None:
    store = MemoryStore()
    manifest = forged(store, Layout((0,), (), b""), (entry("a", b"aaaaa", 10),), blobs=[b"aaaaa"])
    with pytest.raises(ThetaError):
        smudge(manifest, store, Forgetful())


@pytest.mark.parametrize("size", [10, PACKED + 10])
def test_one_digest_with_two_sizes(size: int) -> None:
    store = MemoryStore()
    data = b"a" * size
    entries = (entry("a", data), entry("b", data, size + 1))
    put(store, data)
    manifest = forged(store, Layout((0, size), (), b""), entries, 2 * size + 1, blobs=[data] if size <= PACKED else [])
    with pytest.raises(CorruptObject):
        smudge(manifest, store, Forgetful())


def header_of(kind: object, size: object = 8) -> bytes:
    fields = {"chunk": 8, "group": None, "kind": kind, "parameters": {}, "size": size, "width": 4}
    return b"git-theta-btm object 1\n" + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def encoded(store: MemoryStore, kind: object) -> Manifest:
    """A manifest of one tensor, stored as an object that says it is of some kind."""
    data = header_of(kind) + bytes(20_000)
    digest = Digest.of(b"the tensor")
    wanted = Entry("a", Tensor(DTYPES["U8"], (PACKED + 8,)), digest)
    line = Stored("dense", put(store, data), len(data), (digest,))
    plain = forged(store, Layout((0,), (), b""), (wanted,), PACKED + 8)
    return dataclasses.replace(plain, objects=tuple(sorted((*plain.objects, line))))


def test_a_kind_of_object_that_does_not_exist_yet() -> None:
    store = MemoryStore()
    with pytest.raises(ThetaError, match="newer"):
        smudge(encoded(store, "future"), store, Forgetful())


@pytest.mark.parametrize("kind", [5, None, [], {}, "", "../os", "os", "__init__", "\ud800", "x" * 10_000])
def test_an_encoded_object_of_a_kind_that_is_none(kind: object) -> None:
    store = MemoryStore()
    with pytest.raises(ThetaError):
        smudge(encoded(store, kind), store, Forgetful())


class CountingStore(MemoryStore):
    """Counts how often an object is opened, and gives up in time."""

    count = 0

    @contextmanager
    def open(self, oid: Digest) -> Iterator[BytesSource]:
        self.count += 1
        assert self.count < 5000
        with super().open(oid) as source:
            yield source


def test_bases_of_bases_cost_no_more_than_there_are_of_them() -> None:
    """Each of forty objects names the next one twice: a walk along all paths would never end."""
    store = CountingStore()
    last = b"last" * PACKED
    digests = [*(Digest.of(b"%d" % index) for index in range(40)), put(store, last)]
    lines = [Stored("raw", digests[-1], len(last))]
    for digest, base in itertools.pairwise(digests):
        payload = base.encode() + bytes(PACKED)
        data = header_of("linear") + payload + struct.pack("<I", len(payload))
        lines.append(Stored("linear", put(store, data), len(data), (digest, base, base)))
    wanted = Entry("a", Tensor(DTYPES["U8"], (PACKED + 8,)), digests[0])
    plain = forged(store, Layout((0,), (), b""), (wanted,), PACKED + 8)
    manifest = dataclasses.replace(plain, objects=tuple(sorted((*plain.objects, *lines))))
    with pytest.raises(ThetaError):
        smudge(manifest, store, Forgetful())


# -- a file that changes while it is read ----------------------------------------------------------------------------


class ShiftySource(BytesSource):
    """Other bytes on every read after the first few."""

    def __init__(self, data: bytes, calm: int) -> None:
        super().__init__(data)
        self.calm = calm

    def read(self, offset: int, size: int) -> bytes:
        self.calm -= 1
        data = super().read(offset, size)
        return data if self.calm >= 0 else bytes(byte ^ 1 for byte in data)


def test_a_file_that_changes_while_it_is_read_is_refused_or_stored_as_one_of_both() -> None:
    data = save({"small": np.arange(100, dtype="f4"), "large": np.arange(10_000, dtype="f4")})
    outcomes = set()
    for calm in range(12):
        store = MemoryStore()
        try:
            manifest = clean(ShiftySource(data, calm), store, Forgetful())
        except FormatError:
            outcomes.add("refused")
            continue
        assert len(rebuilt(manifest, store)) == len(data)  # it can be rebuilt, whatever it was
        outcomes.add("stored")
    assert outcomes == {"refused", "stored"}


# -- where the file goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["raw", "encoded"])
def test_pouring_into_a_pipe(tmp_path: Path, kind: str) -> None:
    store = DiskStore(str(tmp_path / "theta"))
    numbers = np.random.default_rng(1)
    array = numbers.integers(0, 1 << 32, 1 << 20, "u4") if kind == "raw" else numbers.standard_normal(1 << 20, "f4")
    data = save({"large": array, "small": np.ones(3)})
    manifest = clean(BytesSource(data), store, Forgetful())
    pour = smudge(manifest, store, Forgetful())
    reader, writer = os.pipe()

    def work() -> None:
        pour(writer)
        os.close(writer)

    thread = threading.Thread(target=work)
    thread.start()
    with os.fdopen(reader, "rb") as received:
        assert received.read() == data
    thread.join()

"""A file that is put together from objects and from an earlier version is the file, whatever the two have in common."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from git_theta_btm.checkout.assembling import Assembler, Version
from git_theta_btm.errors import CorruptObject, MissingObject, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.layout import Layout
from git_theta_btm.manifest import Blob, Digest, Entry, Manifest
from git_theta_btm.source import BytesSource
from git_theta_btm.store import DiskStore, Forgetful, MemoryStore, ObjectStore, put
from git_theta_btm.tensor import Tensor

State = Mapping[str, np.ndarray]


def cleaned(data: bytes, store: ObjectStore, memory: Forgetful | None = None) -> Manifest:
    return clean(BytesSource(data), store, memory or Forgetful())


@contextmanager
def version(data: bytes, manifest: Manifest) -> Iterator[Version]:
    with TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield Version(manifest, file.fileno(), os.fstat(file.fileno()))


def assembled(manifest: Manifest, store: ObjectStore, old: Version | None = None) -> bytes:
    """The file, and a check that all of it was counted."""
    counted: list[int] = []
    with TemporaryFile() as out:
        Assembler(store, Forgetful(), wrote=counted.append).write(manifest, out.fileno(), old)
        out.seek(0)
        data = out.read()
    assert sum(counted) == len(data) or old
    return data


def container(sizes: list[int]) -> bytes:
    """A safetensors file of tensors of some sizes; two of one size have the same bytes."""
    ends = np.cumsum([0, *sizes])
    header = {
        f"t{index}": {"dtype": "U8", "shape": [size], "data_offsets": [int(ends[index]), int(ends[index + 1])]}
        for index, size in enumerate(sizes)
    }
    text = json.dumps(header).encode()
    data = b"".join(np.random.default_rng(size).bytes(size) for size in sizes)
    return len(text).to_bytes(8, "little") + text + data


@settings(max_examples=60)
@given(
    *2 * [st.lists(st.sampled_from([0, 1, 7, 500, 16_384, 16_385, 40_000]), max_size=6)],
    st.sampled_from([b"", b"end", bytes(2_000_000)]),
)
def test_any_two_files(before: list[int], after: list[int], tail: bytes) -> None:
    store = MemoryStore()
    one, other = container(before) + tail, container(after) + tail
    manifest = cleaned(other, store)
    with version(one, cleaned(one, store)) as old:
        assert assembled(manifest, store, old) == other
    assert assembled(manifest, store) == other


def torch_zip(state: State) -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(values) for name, values in state.items()}, file)
    return file.getvalue()


def npz(state: State) -> bytes:
    file = io.BytesIO()
    np.savez(file, **state)
    return file.getvalue()


def hdf5(state: State) -> bytes:
    h5py = pytest.importorskip("h5py")
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for name, values in state.items():
            root[name] = values
    return file.getvalue()


@pytest.mark.parametrize(
    "dump", [save, torch_zip, npz, hdf5, lambda state: b"".join(v.tobytes() for v in state.values())]
)
def test_every_format(dump: object, tmp_path: Path) -> None:
    assert callable(dump)
    store, memory = DiskStore(str(tmp_path)), Forgetful()
    numbers = np.random.default_rng(0)
    state = {f"h{index}": numbers.standard_normal(30_000, dtype="f4") for index in range(6)}
    one = dump(state)
    before = cleaned(one, store, memory)
    changed = {**state, "h3": state["h3"] + np.float32(1e-3), "h4": np.zeros(3, "f4")}
    other = dump(changed)
    after = cleaned(other, store, memory)
    with version(one, before) as old:
        assert assembled(after, store, old) == other


@pytest.fixture
def pair(tmp_path: Path) -> tuple[DiskStore, bytes, Manifest, bytes, Manifest]:
    """Two versions that share all but one of their tensors."""
    store = DiskStore(str(tmp_path / "theta"))
    one, other = container([50_000, 20_000, 70_000]), container([50_000, 30_000, 70_000])
    return store, one, cleaned(one, store), other, cleaned(other, store)


Pair = tuple[DiskStore, bytes, Manifest, bytes, Manifest]


def spoil(store: DiskStore, manifest: Manifest, name: str) -> None:
    """Change the bytes of the object that holds a parameter."""
    (digest,) = (entry.digest for entry in manifest.entries if entry.name == name)
    held = {stored.rest[0]: stored.oid for stored in manifest.objects if stored.encoded}
    path = Path(store.path(held.get(digest, digest)))
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))


def test_what_the_old_file_has_is_not_read_from_the_store(pair: Pair) -> None:
    store, one, before, other, after = pair
    spoil(store, after, "t2")
    with version(one, before) as old:
        assert assembled(after, store, old) == other
    with pytest.raises(CorruptObject, match="t2"):
        assembled(after, store)


def test_what_it_has_not_is_checked(pair: Pair) -> None:
    store, one, before, _, after = pair
    spoil(store, after, "t1")
    with version(one, before) as old, pytest.raises(CorruptObject, match="t1"):
        assembled(after, store, old)


def test_an_object_that_is_missing(pair: Pair) -> None:
    store, one, before, _, after = pair
    Path(store.path(next(after.needs()).digest)).unlink()
    with version(one, before) as old, pytest.raises(MissingObject):
        assembled(after, store, old)


def test_a_file_that_was_written_to_meanwhile_is_not_used(pair: Pair) -> None:
    store, one, before, other, after = pair
    with version(one, before) as old:
        os.pwrite(old.fd, bytes(60_000), 0)
        os.utime(old.fd, ns=(0, old.state.st_mtime_ns + 1))
        assert assembled(after, store, old) == other


def test_a_file_that_was_cut_short_meanwhile_is_not_used(pair: Pair) -> None:
    store, one, before, other, after = pair
    with version(one, before) as old:
        os.truncate(old.fd, 1000)
        assert assembled(after, store, old) == other


def test_a_version_whose_layout_is_gone_serves_for_nothing(pair: Pair) -> None:
    store, one, before, other, after = pair
    assert before.layout != after.layout
    packs = {stored.oid for stored in before.objects} - {stored.oid for stored in after.objects}
    for oid in packs:
        Path(store.path(oid)).unlink()
    spoil(store, after, "t2")
    with version(one, before) as old, pytest.raises(CorruptObject):
        assembled(after, store, old)


def test_a_small_object_that_makes_a_file_of_petabytes() -> None:
    store = MemoryStore()
    size, count = 100_000, 50
    digest = put(store, bytes(size))
    step = 1 << 40
    entries = tuple(Entry(f"t{index}", Tensor.parse(f"U8[{step}]"), digest) for index in range(count))
    layout = Layout(tuple(index * step for index in range(count)), (), b"").dumps()
    manifest = Manifest("safetensors", count * step, Blob(put(store, layout), len(layout)), entries)
    with pytest.raises(ThetaError):
        assembled(manifest, store)
    honest = tuple(Entry(f"t{index}", Tensor.parse(f"U8[{size}]"), digest) for index in range(count))
    assert Digest.of(bytes(size)) == digest
    layout = Layout(tuple(index * size for index in range(count)), (), b"").dumps()
    manifest = Manifest("safetensors", count * size, Blob(put(store, layout), len(layout)), honest)
    assert assembled(manifest, store) == bytes(count * size)

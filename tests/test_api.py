from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import ml_dtypes
import numpy as np
import pytest
from conftest import Repo

import git_theta_btm
from git_theta_btm.api import Checkpoint
from git_theta_btm.errors import CorruptObject, ManifestError, MissingObject, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.manifest import Digest, Manifest
from git_theta_btm.source import BytesSource, Source
from git_theta_btm.store import DiskStore, Forgetful, MemoryStore

STATE = {
    "h.0.w": np.random.default_rng(0).standard_normal((3000, 1024), dtype="f4"),
    "bias": np.arange(7, dtype="f4"),
    "step": np.array(3, "i8"),
    "none": np.zeros((0, 5), "f4"),
}


class Counting(DiskStore):
    """Counts the bytes that are read."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.count = 0

    @contextmanager
    def open(self, oid: Digest) -> Iterator[Source]:  # type: ignore[override]
        with super().open(oid) as source:
            yield CountingSource(source, self)


class CountingSource:
    def __init__(self, source: Source, store: Counting) -> None:
        self.source, self.store, self.size = source, store, source.size

    def read(self, offset: int, size: int) -> bytes:
        self.store.count += size
        return self.source.read(offset, size)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        self.store.count += len(buffer)
        self.source.readinto(offset, buffer)


@pytest.fixture
def model(repo: Repo) -> Repo:
    repo.write("dir/m.safetensors", STATE)
    repo.commit()
    repo.write("dir/m.safetensors", {**STATE, "h.0.w": STATE["h.0.w"] * np.float32(1.0001)})
    repo.git("add", "--all")
    return repo


def test_a_model_is_a_mapping_of_arrays(model: Repo) -> None:
    checkpoint = git_theta_btm.open("dir/m.safetensors", "HEAD", str(model.path))
    assert checkpoint.keys() == STATE.keys()
    assert len(checkpoint) == 4 and "bias" in checkpoint and "frob" not in checkpoint
    for name, expected in STATE.items():
        found = checkpoint[name]
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    assert checkpoint.digest == model.manifest("dir/m.safetensors", "HEAD").digest
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.entries["bias"].tensor.shape == (7,)
    with pytest.raises(KeyError):
        checkpoint["frob"]
    with pytest.raises(ValueError, match="read-only"):
        checkpoint["bias"][0] = 1


def test_without_a_revision_it_is_the_index(model: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.path / "dir")
    staged = git_theta_btm.open("m.safetensors")
    assert staged.digest == model.manifest("dir/m.safetensors").digest
    assert staged.digest != git_theta_btm.open("m.safetensors", "HEAD").digest
    assert git_theta_btm.open(str(model.path / "dir/m.safetensors")).digest == staged.digest


def test_the_worktree_is_not_needed(model: Repo, tmp_path: Path) -> None:
    model.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    os.symlink(model.theta, tmp_path / "bare/theta")
    checkpoint = git_theta_btm.open("dir/m.safetensors", repository=str(tmp_path / "bare"))
    assert checkpoint["bias"].tolist() == list(range(7))


@pytest.mark.parametrize(
    ("path", "rev", "words"),
    [
        ("frob", None, "no file 'frob' in the index"),
        ("frob", "HEAD", "no file 'frob' in HEAD"),
        ("dir/m.safetensors", "frob", "no revision 'frob'"),
        ("dir/m.safetensors", "--all", "no revision '--all'"),
        (".gitattributes", "HEAD", "not stored parameter by parameter"),
        ("../../m.safetensors", None, "no file"),
    ],
)
def test_what_is_no_model_is_one_error(model: Repo, path: str, rev: str | None, words: str) -> None:
    with pytest.raises(ThetaError, match=words):
        git_theta_btm.open(path, rev, str(model.path))


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 9), (2998, 3000), (-2, 10_000), (7, 7), (9, 3)])
@pytest.mark.parametrize("revision", ["HEAD", None])
def test_slices(model: Repo, revision: str | None, start: int, stop: int) -> None:
    checkpoint = git_theta_btm.open("dir/m.safetensors", revision, str(model.path))
    part = checkpoint.slice("h.0.w", start, stop)
    whole = checkpoint["h.0.w"][start:stop]
    assert (part.shape, part.tobytes()) == (whole.shape, whole.tobytes())


def test_a_slice_reads_only_its_chunks(model: Repo) -> None:
    for revision, most in (("HEAD", 0.4), ("", 0.75)):  # one of three chunks, of the tensor and of its base
        manifest = model.manifest("dir/m.safetensors", revision)
        store = Counting(str(model.theta))
        Checkpoint(manifest, store).slice("h.0.w", 1, 3)
        stored = sum(line.size for line in manifest.objects if line.encoded)
        assert 0 < store.count < most * stored


def test_a_slice_of_a_raw_object_reads_its_rows_alone(tmp_path: Path) -> None:
    store = Counting(str(tmp_path))
    noise = np.random.default_rng(0).integers(0, 1 << 32, (1000, 1000), dtype="u4")
    checkpoint = Checkpoint(cleaned({"w": noise}, store), store)
    store.count = 0
    assert (checkpoint.slice("w", 10, 12) == noise[10:12]).all()
    assert store.count < 2 * 4000 + 1000  # and the pack of the small ones


def test_rows_need_a_dimension(model: Repo) -> None:
    checkpoint = git_theta_btm.open("dir/m.safetensors", None, str(model.path))
    with pytest.raises(ThetaError, match="parameter step: .*no rows"):
        checkpoint.slice("step", 0, 1)


def cleaned(state: dict[str, np.ndarray], store: DiskStore | MemoryStore) -> Manifest:
    from safetensors.numpy import save

    return clean(BytesSource(save(state)), store, Forgetful())


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_small_floats(name: str) -> None:
    import torch
    from safetensors.torch import save

    bits = torch.arange(60_000).to(torch.uint8).reshape(-1, 100)
    tensor = bits.view(getattr(torch, name))
    store = MemoryStore()
    checkpoint = Checkpoint(clean(BytesSource(save({"w": tensor})), store, Forgetful()), store)
    assert checkpoint["w"].dtype == getattr(ml_dtypes, name)
    assert checkpoint["w"].tobytes() == bits.numpy().tobytes()
    assert checkpoint.slice("w", 3, 5).tobytes() == bits[3:5].numpy().tobytes()


def test_types_that_numpy_has_not_are_had_raw(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    data = np.random.default_rng(0).integers(0, 256, (4, 34 * 2), dtype="u1")
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "test")
    writer.add_tensor("w", data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    store = MemoryStore()
    checkpoint = Checkpoint(clean(BytesSource((tmp_path / "m.gguf").read_bytes()), store, Forgetful()), store)
    with pytest.raises(ThetaError, match="parameter w: NumPy has no type for Q8_0; its bytes can be had raw"):
        checkpoint["w"]
    assert checkpoint.raw("w") == data.tobytes()
    assert checkpoint.metadata == {}


def test_views_and_strides(tmp_path: Path) -> None:
    import torch

    storage = torch.randn(300, 200)
    state = {"whole": storage, "rows": storage[10:20], "turned": storage.t(), "column": storage[:, 3]}
    torch.save(state, tmp_path / "m.pt")
    store = MemoryStore()
    checkpoint = Checkpoint(clean(BytesSource((tmp_path / "m.pt").read_bytes()), store, Forgetful()), store)
    assert any(entry.view for entry in checkpoint.entries.values())
    for name, tensor in state.items():
        assert (checkpoint[name] == tensor.numpy()).all()
        assert (checkpoint.slice(name, 2, 5) == tensor.numpy()[2:5]).all()


def test_errors_name_the_parameter(model: Repo) -> None:
    checkpoint = git_theta_btm.open("dir/m.safetensors", "HEAD", str(model.path))
    path = model.store.path(next(line.oid for line in checkpoint.manifest.objects if line.encoded))
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[len(data) // 2] ^= 1
    os.chmod(path, 0o644)
    with open(path, "wb") as file:
        file.write(data)
    with pytest.raises(CorruptObject, match=r"parameter h\.0\.w: .*"):
        checkpoint["h.0.w"]
    os.unlink(path)
    with pytest.raises(MissingObject, match=r"parameter h\.0\.w: object .* is not in the store: 'git theta fetch"):
        checkpoint.slice("h.0.w", 0, 1)
    with pytest.raises(MissingObject, match=r"parameter h\.0\.w: .*: 'git theta fetch"), checkpoint.source("h.0.w"):
        pass
    assert checkpoint["bias"].shape == (7,)  # which needs nothing of it


def test_equal_are_those_of_one_digest(model: Repo) -> None:
    committed, again = (git_theta_btm.open("dir/m.safetensors", "HEAD", str(model.path)) for _ in range(2))
    staged = git_theta_btm.open("dir/m.safetensors", None, str(model.path))
    (model.theta / "objects").rename(model.theta / "gone")  # no weight is read
    assert committed == again and {committed, again, staged} == {committed, staged}
    assert committed != staged and committed != STATE and committed != {}


def test_a_broken_manifest_is_one_error_that_names_the_file(model: Repo) -> None:
    text = model.blob("dir/m.safetensors").replace(b"bias", b"gain")
    oid = model.run("hash-object", "-w", "--stdin", stdin=text).stdout.decode().strip()
    model.git("update-index", "--cacheinfo", f"100644,{oid},dir/m.safetensors")
    with pytest.raises(ManifestError, match=r"dir/m\.safetensors in the index: broken manifest"):
        git_theta_btm.open("dir/m.safetensors", None, str(model.path))


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ThetaError, match="there is no directory .*nope"):
        git_theta_btm.open("m.safetensors", repository=str(tmp_path / "nope"))


def test_a_manifest_that_lies_about_its_format(model: Repo) -> None:
    store = MemoryStore()
    manifest = clean(BytesSource(b"no safetensors at all"), store, Forgetful())
    lie = Manifest("safetensors", manifest.size, manifest.layout, (), manifest.chunks, manifest.objects)
    with pytest.raises(ManifestError, match="safetensors"):
        Checkpoint(lie, store).metadata  # noqa: B018


def test_many_threads(model: Repo) -> None:
    checkpoint = git_theta_btm.open("dir/m.safetensors", None, str(model.path))
    expected = [STATE["h.0.w"][row : row + 2] * np.float32(1.0001) for row in range(0, 3000, 300)]
    found: dict[int, np.ndarray] = {}

    def read(index: int) -> None:
        found[index] = checkpoint.slice("h.0.w", 300 * index, 300 * index + 2)

    threads = [Thread(target=read, args=(index,)) for index in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((found[index] == rows).all() for index, rows in enumerate(expected))


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="frob"):
        git_theta_btm.frob  # noqa: B018
    assert git_theta_btm.Checkpoint is Checkpoint

"""Recipes applied to files without git: what is written, and what it is stored as."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from git_theta_btm.adapters.applying import Bench
from git_theta_btm.adapters.edits import Edit, Operand, recipe
from git_theta_btm.blobs import Blobs
from git_theta_btm.errors import CorruptObject
from git_theta_btm.filters.clean import clean
from git_theta_btm.filters.identify import Surroundings
from git_theta_btm.filters.smudge import smudge
from git_theta_btm.manifest import Manifest
from git_theta_btm.source import BytesSource, FileSource
from git_theta_btm.store import Forgetful, MemoryStore
from git_theta_btm.tensor import DTYPES, Tensor

Ports = tuple[MemoryStore, Forgetful]
NAME = "h.0.q.weight"


def operand(name: str, array: np.ndarray) -> Operand:
    return Operand(name, Tensor(DTYPES["F32"], array.shape), BytesSource(np.ascontiguousarray(array).tobytes()))


def lora(seed: int, shape: tuple[int, int] = (256, 256), rank: int = 2) -> Edit:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((shape[0], rank), "f4"), rng.standard_normal((rank, shape[1]), "f4")
    return Edit(NAME, "low_rank", (operand("B", left), operand("A", right)))


def step(data: bytes, manifest: Manifest, edits: Mapping[str, Edit], ports: Ports, folder: Path) -> tuple[bytes, int]:
    """The file with edits applied, and the bytes of factors that went into the store."""
    tensors = {entry.name: entry.tensor for entry in manifest.entries}
    recipes = {name: recipe(edit, tensors[name]) for name, edit in edits.items()}
    (folder / "old").write_bytes(data)
    bench = Bench(manifest, *ports)
    with open(folder / "old", "rb") as old, TemporaryFile() as new:
        bench.apply(recipes, FileSource(old.fileno()), new.fileno())
        factors = bench.offer(recipes, new.fileno(), lambda done, total: None)
        new.seek(0)
        return new.read(), factors


def cleaned(data: bytes, ports: Ports, parent: Manifest | None = None) -> Manifest:
    return clean(BytesSource(data), *ports, Surroundings(parent=lambda: parent))


def rebuilt(manifest: Manifest, store: MemoryStore) -> bytes:
    with TemporaryFile() as file:
        smudge(manifest, store, Forgetful())(file.fileno())
        file.seek(0)
        return file.read()


def kinds(manifest: Manifest) -> list[str]:
    return [line.kind for line in manifest.objects if line.kind != "pack"]


def test_updates_on_updates(tmp_path: Path) -> None:
    """Decoding work stays bounded, and every version can be rebuilt from its manifest alone."""
    ports = MemoryStore(), Forgetful()
    weight = np.random.default_rng(0).standard_normal((256, 256), "f4")
    data = save({NAME: weight})
    manifest = cleaned(data, ports)
    for seed in range(10):
        before = set(ports[0].objects)
        data, factors = step(data, manifest, {NAME: lora(seed)}, ports, tmp_path)
        manifest = cleaned(data, ports, manifest)
        assert rebuilt(manifest, ports[0]) == data
        assert kinds(manifest) == (["low_rank"] * (seed + 1) + ["raw"] if seed < 6 else kinds(manifest))
        added = sum(len(data) for oid, data in ports[0].objects.items() if oid not in before)
        if seed < 6:
            assert factors == 4096 and added < 2 * factors
        assert max(map(Blobs(manifest.objects, ports[0]).work, [manifest.entries[0].digest])) <= 9


def test_the_memory_may_know_nothing(tmp_path: Path) -> None:
    """As after a clone: how the old value is stored stands in the manifest alone."""
    store = MemoryStore()
    data = save({NAME: np.random.default_rng(0).standard_normal((256, 256), "f4")})
    manifest = cleaned(data, (store, Forgetful()))
    for seed in (1, 2):
        ports = store, Forgetful()
        data, _ = step(data, manifest, {NAME: lora(seed)}, ports, tmp_path)
        manifest = cleaned(data, ports)
    assert kinds(manifest) == ["low_rank", "low_rank", "raw"]
    assert rebuilt(manifest, store) == data


def test_factors_that_are_larger_than_the_parameter(tmp_path: Path) -> None:
    ports = MemoryStore(), Forgetful()
    data = save({NAME: np.ones((80, 80), "f4")})
    manifest = cleaned(data, ports)
    data, factors = step(data, manifest, {NAME: lora(0, (80, 80), 40)}, ports, tmp_path)
    assert factors == 0 and kinds(cleaned(data, ports)) == []


def test_a_small_parameter_stays_in_its_pack(tmp_path: Path) -> None:
    ports = MemoryStore(), Forgetful()
    data = save({NAME: np.ones((60, 60), "f4")})
    data, factors = step(data, cleaned(data, ports), {NAME: lora(0, (60, 60))}, ports, tmp_path)
    manifest = cleaned(data, ports)
    assert factors == 0 and kinds(manifest) == []
    assert rebuilt(manifest, ports[0]) == data


def test_factors_that_several_parameters_share_are_stored_once(tmp_path: Path) -> None:
    ports = MemoryStore(), Forgetful()
    rng = np.random.default_rng(0)
    data = save({f"h.{layer}.weight": rng.standard_normal((256, 256), "f4") for layer in range(3)})
    edit = lora(1)
    edits = {f"h.{layer}.weight": edit for layer in range(3)}
    data, factors = step(data, cleaned(data, ports), edits, ports, tmp_path)
    assert factors == 4096 and kinds(cleaned(data, ports)).count("low_rank") == 3


def test_views_of_one_storage(tmp_path: Path) -> None:
    """They have no blob of their own: the old value is taken from the file, the new one is left to the filter."""
    torch = pytest.importorskip("torch")
    storage = torch.randn(300, 256)
    file = io.BytesIO()
    torch.save({NAME: storage[:256], "rest": storage[200:]}, file)
    ports = MemoryStore(), Forgetful()
    manifest = cleaned(file.getvalue(), ports)
    assert all(entry.view for entry in manifest.entries)
    data, factors = step(file.getvalue(), manifest, {NAME: lora(0)}, ports, tmp_path)
    loaded: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    product = np.frombuffer(lora(0).operands[0].data(), "f4").reshape(256, 2) @ np.frombuffer(
        lora(0).operands[1].data(), "f4"
    ).reshape(2, 256)
    assert factors == 0
    assert np.allclose(loaded[NAME].numpy(), storage[:256].numpy() + product, atol=1e-5)
    assert torch.equal(loaded["rest"][:56], loaded[NAME][200:]) and torch.equal(loaded["rest"][56:], storage[256:])


def test_a_corrupt_old_value(tmp_path: Path) -> None:
    ports = MemoryStore(), Forgetful()
    data = save({NAME: np.ones((256, 256), "f4")})
    manifest = cleaned(data, ports)
    (entry,) = manifest.entries
    ports[0].objects[entry.digest] = bytes(entry.tensor.nbytes)
    with pytest.raises(CorruptObject, match=entry.digest):
        step(data, manifest, {NAME: lora(0)}, (ports[0], Forgetful()), tmp_path)

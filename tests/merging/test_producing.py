"""Merged files, byte for byte: correctly rounded, whole, and stored for next to nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from git_theta_btm.api import Checkpoint
from git_theta_btm.blobs import Blobs
from git_theta_btm.errors import CorruptObject, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.filters.encode import Candidate, Scribe
from git_theta_btm.filters.smudge import smudge
from git_theta_btm.floats import narrow, widen
from git_theta_btm.merging.computing import Device
from git_theta_btm.merging.inputs import Models
from git_theta_btm.merging.producing import Workshop, produce
from git_theta_btm.merging.recipe import Recipe, Rule
from git_theta_btm.merging.resolve import plan
from git_theta_btm.source import BytesSource
from git_theta_btm.store import Forgetful, MemoryStore

State = dict[str, torch.Tensor]


class Bench:
    """A store in memory, and models in it."""

    def __init__(self, path: Path) -> None:
        self.store, self.memory, self.path = MemoryStore(), Forgetful(), path
        self.mode = "fast"

    def model(self, data: bytes) -> Checkpoint:
        return Checkpoint(clean(BytesSource(data), self.store, self.memory), self.store)

    def merge(
        self, tips: Sequence[Checkpoint], recipe: Recipe, base: Checkpoint | None = None, device: str = ""
    ) -> Checkpoint:
        """The merged model; the file is at ``path``, and the store gives it back to the byte."""
        steps = plan([tip.manifest for tip in tips], base.manifest if base else None, recipe)
        self.path.unlink(missing_ok=True)
        out = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        workshop = Workshop(self.store, self.memory, self.mode, Device(device))
        manifest = produce(Models(tuple(tips), base), steps, out, workshop)
        os.close(out)
        again = os.open(self.path.with_suffix(".again"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        smudge(manifest, self.store, Forgetful())(again)
        os.close(again)
        assert self.path.with_suffix(".again").read_bytes() == self.path.read_bytes()
        return Checkpoint(manifest, self.store)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "merged")


def state(seed: int, dtype: torch.dtype = torch.float32, rows: int = 64) -> State:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layers.0.weight": (rows, 96), "layers.1.weight": (rows, 96), "bias": (3,), "scalar": (), "none": (0, 4)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def torch_file(tensors: State) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": tensors, "step": 7}, buffer)
    return buffer.getvalue()


def npz_file(tensors: State) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tensor.numpy() for name, tensor in tensors.items()})
    return buffer.getvalue()


def bits(tensor: torch.Tensor) -> Any:
    return tensor.contiguous().view(
        {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    )


DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2, 3, 8, 64])
def test_the_average_is_the_correctly_rounded_mean(bench: Bench, dtype: str, count: int) -> None:
    states = [state(seed, DTYPES[dtype], 16) for seed in range(count)]
    bench.merge([bench.model(save_safetensors(item)) for item in states], Recipe())
    merged = load_safetensors(bench.path.read_bytes())
    for name, tensor in merged.items():
        total = sum(item[name].to(torch.float64).numpy() for item in states)
        expected = narrow(np.atleast_1d(np.asarray(total / count)), dtype)
        got = np.atleast_1d(bits(tensor).numpy()).view(expected.dtype)
        if dtype in ("F32", "F64"):  # the order of a sum in float64 may show in the last place
            difference = got.astype(np.int64) - expected.astype(np.int64)
            assert np.abs(difference).max(initial=0) <= (1 if dtype == "F32" else 8)
        else:
            assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("weights", [(), (0.5, 0.3, 0.2), (1.0, 2.0, 4.0)])
def test_the_average_of_equals_is_what_they_are(bench: Bench, dtype: torch.dtype, weights: tuple[float, ...]) -> None:
    """Element for element, too, where the tensors differ elsewhere."""
    states = [state(0, dtype) for _ in range(3)]
    for seed, item in enumerate(states):
        item["layers.0.weight"][seed] = 1
    bench.merge([bench.model(save_safetensors(item)) for item in states], Recipe(weights=weights))
    merged = load_safetensors(bench.path.read_bytes())
    assert torch.equal(bits(merged["layers.0.weight"][3:]), bits(states[0]["layers.0.weight"][3:]))
    assert torch.equal(bits(merged["layers.1.weight"]), bits(states[0]["layers.1.weight"]))


def test_an_order_changes_nothing(bench: Bench) -> None:
    models = [bench.model(save_safetensors(state(seed))) for seed in range(4)]
    weights = (0.1, 0.2, 0.3, 0.4)
    first = bench.merge(models, Recipe(weights=weights))
    order = (2, 0, 3, 1)
    second = bench.merge([models[index] for index in order], Recipe(weights=tuple(weights[index] for index in order)))
    assert first.manifest == second.manifest


@pytest.mark.parametrize("file", [save_safetensors, torch_file, npz_file])
def test_every_container(bench: Bench, file: Callable[[State], bytes]) -> None:
    """The checksums in a zip are those of the new bytes."""
    states = [state(seed) for seed in range(2)]
    bench.merge([bench.model(file(item)) for item in states], Recipe())
    data = bench.path.read_bytes()
    if file is torch_file:
        loaded = torch.load(io.BytesIO(data), weights_only=True)
        assert loaded["step"] == 7
        merged = loaded["model"]
    elif file is npz_file:
        merged = {name: torch.from_numpy(array) for name, array in np.load(io.BytesIO(data)).items()}
    else:
        merged = load_safetensors(data)
    for name, tensor in merged.items():
        assert torch.equal(tensor, (states[0][name].double() + states[1][name]).div(2).float())


def test_tied_weights_stay_tied(bench: Bench) -> None:
    files = []
    for seed in range(2):
        tensors = state(seed)
        tensors["tied"] = tensors["layers.0.weight"]
        files.append(torch_file(tensors))
    merged = bench.merge([bench.model(file) for file in files], Recipe())
    loaded = torch.load(bench.path, weights_only=True)["model"]
    assert loaded["tied"].data_ptr() == loaded["layers.0.weight"].data_ptr()
    assert np.array_equal(merged["model.tied"], loaded["tied"].numpy())


def test_tied_weights_that_would_part(bench: Bench) -> None:
    files = []
    for seed in range(2):
        tensors = state(seed)
        tensors["tied"] = tensors["layers.0.weight"]
        files.append(torch_file(tensors))
    recipe = Recipe(rules=(Rule(("*tied",), "ours"),))
    with pytest.raises(ThetaError, match=r"shares its memory with another parameter"):
        bench.merge([bench.model(file) for file in files], recipe)


def test_views_and_strides(bench: Bench) -> None:
    def file(seed: int) -> bytes:
        big = torch.randn(40, 30, generator=torch.Generator().manual_seed(seed))
        return torch_file({"big": big, "head": big[:10], "turned": big.t(), "other": torch.ones(3, 4).t() * seed})

    bench.merge([bench.model(file(seed)) for seed in (1, 2)], Recipe())
    merged = torch.load(bench.path, weights_only=True)["model"]
    sides = [torch.load(io.BytesIO(file(seed)), weights_only=True)["model"] for seed in (1, 2)]
    for name, tensor in merged.items():
        assert torch.equal(tensor, (sides[0][name].double() + sides[1][name]).div(2).float())


@pytest.mark.parametrize(
    "strategy", ["average", "ties", "dare_ties", "task_arithmetic", "multislerp", "sce", "consensus"]
)
def test_a_merge_is_stored_as_its_recipe(bench: Bench, strategy: str) -> None:
    seed = state(0, torch.bfloat16, 2048)
    states = [
        {name: tensor + 0.01 * state(1 + k, torch.bfloat16, 2048)[name] for name, tensor in seed.items()}
        for k in range(3)
    ]
    base, *tips = (bench.model(save_safetensors(item)) for item in (seed, *states))
    before = sum(map(len, bench.store.objects.values()))
    bench.merge(tips, Recipe(strategy), base)
    added = sum(map(len, bench.store.objects.values())) - before
    size = sum(tensor.nbytes for tensor in seed.values())
    assert added < 0.01 * size


def test_raw_is_raw(bench: Bench) -> None:
    bench.mode = "raw"
    models = [bench.model(save_safetensors(state(seed, rows=2048))) for seed in range(2)]
    merged = bench.merge(models, Recipe())
    assert not [stored for stored in merged.manifest.objects if stored.encoded]


@pytest.mark.parametrize("strategy", ["average", "ties", "dare_linear", "della", "slerp", "iso_c", "model_stock"])
def test_torch_computes_the_same_bits(bench: Bench, strategy: str) -> None:
    pytest.importorskip("array_api_compat")
    models = [bench.model(save_safetensors(state(seed))) for seed in range(3)]
    expected = bench.merge(models[1:], Recipe(strategy), models[0])
    got = bench.merge(models[1:], Recipe(strategy), models[0], device="cpu")
    assert got.manifest.digest == expected.manifest.digest


def test_element_types_that_differ(bench: Bench) -> None:
    ours, theirs = state(0, torch.bfloat16), state(1)
    bench.merge([bench.model(save_safetensors(item)) for item in (ours, theirs)], Recipe())
    merged = load_safetensors(bench.path.read_bytes())
    for name, tensor in merged.items():
        mean = (ours[name].double() + theirs[name].double()) / 2
        expected = widen(narrow(np.atleast_1d(mean.numpy()), "BF16"), "BF16")
        assert tensor.dtype == torch.bfloat16
        assert np.array_equal(np.atleast_1d(tensor.double().numpy()), expected)


def test_complex_numbers(bench: Bench) -> None:
    states = [
        {"w": torch.randn(300, 7, dtype=torch.complex64, generator=torch.Generator().manual_seed(k))} for k in (1, 2)
    ]
    bench.merge([bench.model(torch_file(item)) for item in states], Recipe())
    merged = torch.load(bench.path, weights_only=True)["model"]["w"]
    assert torch.equal(merged, ((states[0]["w"].to(torch.complex128) + states[1]["w"]) / 2).to(torch.complex64))


def test_what_is_not_a_number_stays_none(bench: Bench) -> None:
    states = [state(seed) for seed in range(2)]
    states[0]["layers.0.weight"][0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    bench.merge([bench.model(save_safetensors(item)) for item in states], Recipe())
    merged = load_safetensors(bench.path.read_bytes())["layers.0.weight"]
    assert torch.isnan(merged[0, 0])
    assert merged[0, 1:3].tolist() == [float("inf"), -float("inf")]
    assert torch.isfinite(merged[0, 3:]).all()


def test_an_input_that_is_corrupt(bench: Bench) -> None:
    models = [bench.model(save_safetensors(state(seed, rows=256))) for seed in range(2)]
    digest = models[1].entries["layers.0.weight"].digest
    data = bytearray(bench.store.objects[digest])
    data[100] ^= 1
    bench.store.objects[digest] = bytes(data)
    bench.memory = Forgetful()
    with pytest.raises(CorruptObject, match=digest):
        bench.merge(models, Recipe())


def test_models_whose_ways_lead_through_each_other(bench: Bench) -> None:
    """After a repack of one branch, each of two versions may be stored in terms of the other somewhere."""
    states = [state(0), state(0)]
    states[1]["layers.0.weight"] += 2**-10
    one, two = (bench.model(save_safetensors(item)) for item in states)
    blobs = [model.entries["layers.0.weight"].blob for model in (one, two)]
    raw = [states[index]["layers.0.weight"].numpy().tobytes() for index in range(2)]
    expected = bench.merge([one, two], Recipe()).digest
    models = []
    for model, index in ((one, 0), (two, 1)):
        store = MemoryStore()
        store.objects[blobs[1 - index].digest] = raw[1 - index]
        scribe = Scribe(BytesSource(raw[index]), Blobs((), store), store, Forgetful())
        stored = scribe.write(0, len(raw[index]), 4, Candidate("delta", (blobs[1 - index],))).stored
        assert stored is not None
        bench.store.objects[stored.oid] = store.objects[stored.oid]
        models.append(Checkpoint(replace(model.manifest, objects=(*model.manifest.objects, stored)), bench.store))
    assert bench.merge(models, Recipe()).digest == expected


def test_a_statistic_that_is_corrupt(bench: Bench) -> None:
    models = [bench.model(save_safetensors(state(seed, rows=256))) for seed in range(4)]
    steps = plan([model.manifest for model in models[:2]], None, Recipe("fisher"))
    oid = models[3].entries["layers.1.weight"].digest
    bench.store.objects[oid] = bytes(len(bench.store.objects[oid]))
    out, workshop = os.open(bench.path, os.O_RDWR | os.O_CREAT, 0o600), Workshop(bench.store, Forgetful())
    with pytest.raises(CorruptObject, match=oid):
        produce(Models((models[0], models[1]), None, (models[2], models[3])), steps, out, workshop)
    os.close(out)


def test_applying_a_change_and_taking_it_back(bench: Bench) -> None:
    seed, legal, medical = (state(k) for k in range(3))
    base, theirs, ours = (bench.model(save_safetensors(item)) for item in (seed, legal, medical))
    applied = bench.merge([ours, theirs], Recipe("apply"), base)
    merged = load_safetensors(bench.path.read_bytes())
    for name, tensor in merged.items():
        expected = medical[name].double() + (legal[name].double() - seed[name].double())
        assert torch.equal(tensor, expected.float())
    bench.merge([applied, base], Recipe("apply"), theirs)
    back = load_safetensors(bench.path.read_bytes())
    for name, tensor in back.items():
        torch.testing.assert_close(tensor, medical[name], rtol=1e-6, atol=1e-6)

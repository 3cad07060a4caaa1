from __future__ import annotations

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import git_theta_btm
from git_theta_btm.api import Checkpoint
from git_theta_btm.errors import CorruptObject, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.source import BytesSource
from git_theta_btm.store import Forgetful, MemoryStore
from git_theta_btm.zarr.exporting import export, grid, places
from git_theta_btm.zarr.importing import gather

pytest.importorskip("tensorstore")

ORIGIN = {"version": 1, "revision": "main", "path": "m.safetensors"}
Group = tuple[Checkpoint, str]


def loaded(data: bytes) -> Checkpoint:
    store = MemoryStore()
    return Checkpoint(clean(BytesSource(data), store, Forgetful()), store)


def model() -> bytes:
    import torch
    from safetensors.torch import save

    torch.manual_seed(0)
    special = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    patterns = torch.arange(512).to(torch.uint8)
    return save(
        {
            "h.0.attn/w": torch.randn(300, 40).to(torch.bfloat16),
            "h.0": torch.randn(3, 5),
            "special": special,
            "nan": (torch.arange(1 << 10) + 0x7FC00000).to(torch.int32).view(torch.float32),
            "zeros": torch.full((100, 7), -0.0),
            "scalar": torch.tensor(3.5),
            "none": torch.zeros(0, 4),
            "flag": torch.tensor([True, False]),
            "f8": patterns.view(torch.float8_e4m3fn),
            "f8b": patterns.clone().view(torch.float8_e5m2),
            "whole": torch.arange(-5, 5),
            "größe ü": torch.ones(2, dtype=torch.uint8),
            "new\nline, \u202eback and \x7f": torch.ones(3, dtype=torch.uint8),
        },
        {"format": "pt"},
    )


@pytest.fixture
def group(tmp_path: Path) -> Group:
    checkpoint = loaded(model())
    directory = str(tmp_path / "m.zarr")
    export(checkpoint, directory, list(checkpoint), ORIGIN)
    return checkpoint, directory


def test_a_model_comes_back_with_the_same_tensors(group: Group, tmp_path: Path) -> None:
    checkpoint, directory = group
    found = gather(directory, str(tmp_path / "back.safetensors"))
    back = loaded((tmp_path / "back.safetensors").read_bytes())
    assert back.entries == checkpoint.entries
    assert back.metadata == {"format": "pt"}
    assert [item.name for item in found] == list(checkpoint)


def test_the_file_is_one_that_the_reference_implementation_reads(group: Group, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    gather(group[1], str(tmp_path / "back.safetensors"))
    tensors = load_file(tmp_path / "back.safetensors")
    assert tensors["h.0"].numpy().tobytes() == group[0]["h.0"].tobytes()


def test_the_index_says_what_is_where(group: Group) -> None:
    checkpoint, directory = group
    with open(os.path.join(directory, "theta.json")) as file:
        index = json.load(file)
    assert index["revision"] == "main"
    assert index["parameters"].keys() == checkpoint.keys()
    for name, item in index["parameters"].items():
        assert item["digest"] == checkpoint.entries[name].digest
        assert os.path.isfile(os.path.join(directory, item["path"], "zarr.json"))


def test_the_groups_are_those_of_the_specification(group: Group) -> None:
    for at, _, files in os.walk(group[1]):
        if "c" not in os.path.relpath(at, group[1]).split(os.sep):
            assert "zarr.json" in files
            with open(os.path.join(at, "zarr.json")) as file:
                node = json.load(file)
            assert node["zarr_format"] == 3
            assert node["node_type"] in ("group", "array")


def test_parts_are_read_through_a_url(group: Group) -> None:
    checkpoint, directory = group
    for url in (directory, f"file://{directory}", f"file://{directory}/"):
        part = git_theta_btm.open_zarr(url, "h.0.attn/w", 7, 12)
        assert part.dtype == ml_dtypes.bfloat16
        assert part.tobytes() == checkpoint["h.0.attn/w"][7:12].tobytes()
    assert git_theta_btm.open_zarr(directory, "h.0.attn/w", -2).shape == (2, 40)
    assert git_theta_btm.open_zarr(directory, "h.0.attn/w", 9, 3).shape == (0, 40)
    for name in checkpoint:
        assert git_theta_btm.open_zarr(directory, name).tobytes() == checkpoint[name].tobytes()


def test_a_part_reads_only_the_shards_that_hold_it(tmp_path: Path) -> None:
    from safetensors.numpy import save

    checkpoint = loaded(save({"w": np.random.default_rng(0).standard_normal((9000, 2048), dtype="f4")}))
    export(checkpoint, str(tmp_path / "m.zarr"), ["w"], ORIGIN)
    shards = sorted((tmp_path / "m.zarr/w/c").rglob("0"))
    assert len(list((tmp_path / "m.zarr/w/c").iterdir())) == 2
    shards[-1].write_bytes(b"")  # of the second shard nothing is left
    part = git_theta_btm.open_zarr(str(tmp_path / "m.zarr"), "w", 0, 3)
    assert part.tobytes() == checkpoint["w"][:3].tobytes()


def test_errors_of_a_url(group: Group, tmp_path: Path) -> None:
    with pytest.raises(ThetaError, match="no parameter frob"):
        git_theta_btm.open_zarr(group[1], "frob")
    with pytest.raises(ThetaError, match="no rows"):
        git_theta_btm.open_zarr(group[1], "scalar", 0, 1)
    with pytest.raises(ThetaError, match=r"no theta\.json"):
        git_theta_btm.open_zarr(str(tmp_path), "h.0")
    with pytest.raises(ThetaError, match="tensorstore"):
        git_theta_btm.open_zarr("frob://host/x", "h.0")


@pytest.mark.parametrize("path", ["../outside", "/etc", "a//b", ".", ""])
def test_an_index_cannot_lead_out_of_its_group(tmp_path: Path, path: str) -> None:
    text = {"parameters": {"w": {"path": path, "digest": ""}}}
    (tmp_path / "theta.json").write_text(json.dumps(text))
    with pytest.raises(ThetaError, match="outside the group"):
        git_theta_btm.open_zarr(str(tmp_path), "w")


def test_strided_tensors_are_written_in_row_major_order(tmp_path: Path) -> None:
    import torch

    turned = torch.randn(30, 20).t()
    torch.save({"w": turned, "part": torch.randn(50, 4)[::2]}, tmp_path / "m.pt")
    checkpoint = loaded((tmp_path / "m.pt").read_bytes())
    assert checkpoint.entries["w"].tensor.strides
    export(checkpoint, str(tmp_path / "m.zarr"), list(checkpoint), ORIGIN)
    assert git_theta_btm.open_zarr(str(tmp_path / "m.zarr"), "w").tobytes() == turned.numpy().tobytes()
    gather(str(tmp_path / "m.zarr"), str(tmp_path / "back"))
    assert (loaded((tmp_path / "back").read_bytes())["part"] == checkpoint["part"]).all()


def test_what_zarr_cannot_hold_is_named(tmp_path: Path) -> None:
    header = (
        b'{"bad":{"dtype":"F4","shape":[4],"data_offsets":[0,2]},"ok":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}'
    )
    checkpoint = loaded(len(header).to_bytes(8, "little") + header + b"abc")
    with pytest.raises(ThetaError, match="parameter bad: zarr has no type for F4"):
        export(checkpoint, str(tmp_path / "m.zarr"), ["bad", "ok"], ORIGIN)
    export(checkpoint, str(tmp_path / "m.zarr"), ["ok"], ORIGIN)
    header = b'{"flag":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}'
    checkpoint = loaded(len(header).to_bytes(8, "little") + header + b"abc")
    with pytest.raises(ThetaError, match="parameter flag: a truth value"):
        export(checkpoint, str(tmp_path / "flag.zarr"), ["flag"], ORIGIN)
    assert sorted(os.listdir(tmp_path)) == ["m.zarr"]  # nothing is left of what failed


def test_nothing_is_overwritten(group: Group, tmp_path: Path) -> None:
    checkpoint, directory = group
    with pytest.raises(ThetaError, match="exists already"):
        export(checkpoint, directory, ["h.0"], ORIGIN)
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"mine")
    with pytest.raises(ThetaError, match="--force"):
        gather(directory, str(file))
    assert file.read_bytes() == b"mine"
    gather(directory, str(file), force=True)
    assert loaded(file.read_bytes()).entries == checkpoint.entries


def test_a_changed_array_is_noticed(group: Group, tmp_path: Path) -> None:
    import tensorstore

    path = os.path.join(group[1], places(group[0])["h.0"])
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path + "/"}}
    tensorstore.open(spec).result()[0, 0].write(7.0).result()
    with pytest.raises(CorruptObject, match=r"h\.0 is not what was exported"):
        gather(group[1], str(tmp_path / "back"))
    with pytest.raises(CorruptObject, match="another SHA-256"):
        git_theta_btm.open_zarr(group[1], "h.0")
    assert os.listdir(tmp_path) == ["m.zarr"]
    gather(group[1], str(tmp_path / "back"), changed=True)
    assert loaded((tmp_path / "back").read_bytes())["h.0"][0, 0] == 7


def test_a_group_of_another_program(tmp_path: Path) -> None:
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{tmp_path}/g/enc/w/"}}
    metadata = {
        "shape": [4, 6],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 2]}},
    }
    tensorstore.open({**spec, "metadata": metadata}, create=True).result().write(
        np.arange(24, dtype="f4").reshape(4, 6)
    ).result()
    (tmp_path / "g/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    assert [item.name for item in gather(str(tmp_path / "g"), str(tmp_path / "m"))] == ["enc.w"]
    assert loaded((tmp_path / "m").read_bytes())["enc.w"].ravel().tolist() == list(range(24))


NODE = {"zarr_format": 3, "node_type": "array", "shape": [2], "data_type": "uint8"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no description"),
        ("[" * 100_000, "no description"),
        ("[]", "no description"),
        (json.dumps({**NODE, "data_type": "frob"}), "no type for frob"),
        (json.dumps({**NODE, "data_type": "complex128"}), "no type for complex128"),
        (json.dumps({**NODE, "data_type": ["uint8"]}), "no type"),
        (json.dumps({**NODE, "shape": None}), "not integers"),
        (json.dumps({**NODE, "shape": [-1]}), "impossible"),
        (json.dumps({**NODE, "shape": [1 << 70]}), "impossible"),
        (json.dumps({**NODE, "shape": [1 << 60]}), "no room"),
        (json.dumps({**NODE, "attributes": {"git-theta": {"name": "__metadata__"}}}), "name"),
        (json.dumps({**NODE, "attributes": {"git-theta": {"name": "\ud800"}}}), "name"),
        (json.dumps(NODE), "tensorstore"),
    ],
)
def test_a_hostile_group_is_one_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "zarr.json").write_text(text)
    with pytest.raises(ThetaError, match=words):
        gather(str(tmp_path), str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["zarr.json"]


def test_what_is_no_group(tmp_path: Path) -> None:
    with pytest.raises(ThetaError, match="no zarr group"):
        gather(str(tmp_path), str(tmp_path / "out"))
    (tmp_path / "zarr.json").write_text('{"node_type": "group"}')
    with pytest.raises(ThetaError, match="no zarr array"):
        gather(str(tmp_path), str(tmp_path / "out"))


NAMES = st.lists(st.one_of(st.text("aAc./~%_", max_size=6), st.text(max_size=8)), unique=True, max_size=8)


@given(NAMES)
@settings(deadline=None, max_examples=200)
def test_every_name_has_a_place_of_its_own(names: list[str]) -> None:
    found = places(names)
    assert found.keys() == set(names)
    folded = [path.casefold() for path in found.values()]
    assert len(set(folded)) == len(folded)
    for path in folded:
        assert path.isascii() and path.isprintable()
        assert all(part not in ("", ".", "..", "zarr.json", "theta.json") for part in path.split("/"))
        assert not any(other.startswith(path + "/") for other in folded)


def test_places_of_ordinary_names() -> None:
    assert places(["h.0.attn.weight", "h.0.attn", "H.0.attn"]) == {
        "H.0.attn": "H/0/attn~",
        "h.0.attn": "h/0/attn~~",
        "h.0.attn.weight": "h/0/attn/weight",
    }
    assert all(len(path) < 1001 for path in places(["x" * 5000, "a." * 5000]).values())


@given(st.lists(st.integers(0, 1 << 40), max_size=4), st.sampled_from([1, 2, 4, 8, 16]))
@settings(deadline=None, max_examples=200)
def test_chunks_are_small_and_make_whole_shards(shape: list[int], width: int) -> None:
    chunk, shard = grid(shape, width)
    assert len(chunk) == len(shard) == len(shape)
    assert np.prod([1, *chunk], dtype=object) * width <= max(4 << 20, width)
    assert np.prod([1, *shard], dtype=object) * width <= max(64 << 20, width)
    assert all(part >= 1 and whole % part == 0 for part, whole in zip(chunk, shard, strict=True))


def test_rows_are_chunked_about_four_mebibytes() -> None:
    assert grid([50_000, 1024], 2) == ([2048, 1024], [32_768, 1024])
    assert grid([4, 100_000_000], 4) == ([1, 1 << 20], [1, 16 << 20])
    assert grid([], 4) == ([], [])

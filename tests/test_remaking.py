"""Files made from tensors: the reference library reads them, and they are there whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load, load_file

from git_theta_btm import formats
from git_theta_btm.errors import FormatError, ThetaError
from git_theta_btm.formats.safetensors import TYPES as READ
from git_theta_btm.remaking import new_folder, save_safetensors, write_safetensors
from git_theta_btm.source import BytesSource
from git_theta_btm.tensor import DTYPES, Tensor

SPELLED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
ARRAYS = {
    "h.0.weight": np.arange(12, dtype="<f4").reshape(3, 4),
    "odd": np.arange(3, dtype="<f2"),
    "scalar": np.array(2.5, "<f8"),
    "empty": np.empty((0, 4), "<f4"),
    "größe": np.arange(5, dtype="u1"),
}


def content(array: Any) -> tuple[Tensor, BytesSource]:
    name = next(name for name, spelled in SPELLED.items() if np.dtype(spelled) == array.dtype)
    return Tensor(DTYPES[name], array.shape), BytesSource(array.tobytes())


def written(tmp_path: Path, contents: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    path = tmp_path / "written"
    with open(path, "wb") as file:
        assert write_safetensors(file.fileno(), contents, metadata or {}) == os.path.getsize(path)
    return path.read_bytes()


def header(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return found


def test_the_reference_library_reads_it(tmp_path: Path) -> None:
    path = str(tmp_path / "model.safetensors")
    save_safetensors(path, {name: content(array) for name, array in ARRAYS.items()}, {"format": "pt"}, 0o644)
    found = load_file(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_keep_their_order_and_are_aligned(tmp_path: Path) -> None:
    odd = {f"{name}.{place}": np.ones(3, name) for place in range(2) for name in ("u1", "<f4", "<f2", "<f8")}
    data = written(tmp_path, {name: content(array) for name, array in odd.items()})
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    found = header(data)
    assert list(found) == ["<f8.0", "<f8.1", "<f4.0", "<f4.1", "<f2.0", "<f2.1", "u1.0", "u1.1"]
    for name, entry in found.items():
        assert entry["data_offsets"][0] % odd[name].itemsize == 0


@pytest.mark.parametrize("name", DTYPES)
def test_types_are_those_that_are_read(tmp_path: Path, name: str) -> None:
    tensor = Tensor(DTYPES[name], (DTYPES[name].block,))
    contents = {"w": (tensor, BytesSource(bytes(tensor.nbytes)))}
    file = str(tmp_path / "model.safetensors")
    if name not in READ:
        with pytest.raises(FormatError, match="safetensors cannot hold 'w'"):
            save_safetensors(file, contents, {}, 0o644)
        return
    save_safetensors(file, contents, {}, 0o644)
    found = formats.locate(BytesSource(Path(file).read_bytes()))
    assert (found[0], [item.tensor for item in found[1]]) == ("safetensors", [tensor])


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.tuples(st.sampled_from(sorted(SPELLED)), st.lists(st.integers(0, 4), max_size=3)),
        max_size=6,
    )
)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_located_and_loaded(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[str, list[int]]]
) -> None:
    tensors.pop("__metadata__", None)
    arrays = {name: np.ones(shape, SPELLED[kind]) for name, (kind, shape) in tensors.items()}
    contents = {name: content(array) for name, array in arrays.items()}
    data = written(tmp_path_factory.mktemp("any"), contents)
    found, located = formats.locate(BytesSource(data))
    assert found == "safetensors"
    assert {item.name: item.tensor for item in located} == {name: tensor for name, (tensor, _) in contents.items()}
    loaded = load(data)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_bytes_come_in_blocks_and_are_not_kept(tmp_path: Path) -> None:
    block, count = bytes(1 << 20), 64
    tensor = Tensor(DTYPES["U8"], (len(block) * count,))

    def blocks() -> Iterator[bytes]:
        for _ in range(count):
            yield bytes(block)

    class Long:
        size = tensor.nbytes

        def read(self, offset: int, size: int) -> bytes:
            assert size <= len(block)
            return bytes(size)

        def readinto(self, offset: int, buffer: memoryview) -> None:
            raise AssertionError("bytes are read")

    tracemalloc.start()
    save_safetensors(str(tmp_path / "long"), {"a": (tensor, blocks), "b": (tensor, Long())}, {}, 0o644)
    assert tracemalloc.get_traced_memory()[1] < 8 * len(block)
    tracemalloc.stop()
    assert (tmp_path / "long").stat().st_size > 2 * tensor.nbytes


@pytest.mark.parametrize("blocks", [[], [b"1234", b"567"], [b"12345678", b"9"], [b"0123456789"]])
def test_content_of_another_length_is_an_error(tmp_path: Path, blocks: list[bytes]) -> None:
    with pytest.raises(FormatError, match="'a' is not 8 bytes long"):
        save_safetensors(str(tmp_path / "f"), {"a": (Tensor(DTYPES["F32"], (2,)), lambda: blocks)}, {}, 0o644)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("a", Tensor(DTYPES["Q4_0"], (32,))),
        ("a", Tensor(DTYPES["C128"], (1,))),
        ("a", Tensor(DTYPES["F32"], (2, 3), (1, 2))),
        ("__metadata__", Tensor(DTYPES["F32"], (1,))),
        ("\ud800", Tensor(DTYPES["F32"], (1,))),
    ],
)
def test_what_safetensors_cannot_hold(tmp_path: Path, name: str, tensor: Tensor) -> None:
    with pytest.raises(FormatError, match="cannot hold"):
        written(tmp_path, {name: (tensor, BytesSource(bytes(tensor.nbytes)))})


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o664])
def test_a_file_is_private_until_it_is_whole(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def blocks() -> Iterator[bytes]:
        (temporary,) = (file for file in tmp_path.iterdir() if file != path)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert path.read_bytes() == b"old"
        yield b"12345678"

    save_safetensors(str(path), {"a": (Tensor(DTYPES["F32"], (2,)), blocks)}, {}, mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(tmp_path) == [path.name]
    assert load_file(path)["a"].tobytes() == b"12345678"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new"
    with new_folder(str(target)) as folder:
        (Path(folder) / "a").write_text("1")
        assert not target.exists()
    assert os.listdir(target) == ["a"]
    with pytest.raises(ThetaError, match="exists already"), new_folder(str(target)):
        pass
    assert os.listdir(tmp_path) == ["new"]


def test_a_folder_that_fails_goes_away(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(KeyError), new_folder(str(tmp_path / "new")) as folder:
        (Path(folder) / "a").write_text("1")
        raise KeyError
    assert os.listdir(tmp_path) == ["new"]
    assert not os.listdir(tmp_path / "new")
    with new_folder(str(tmp_path / "new")) as folder:
        (Path(folder) / "a").write_text("1")
    assert os.listdir(tmp_path / "new") == ["a"]

"""A rewritten file differs in the bytes of the tensors that were replaced, and those who read it see nothing else."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save

from git_theta_btm import formats
from git_theta_btm.errors import FormatError, ThetaError
from git_theta_btm.readers.checksums import checksums
from git_theta_btm.rewrite import replacing, rewrite
from git_theta_btm.source import BytesSource


def rewritten(data: bytes, new: Mapping[str, bytes], folder: Path) -> bytes:
    with open(folder / "out", "w+b") as file:
        rewrite(BytesSource(data), {name: BytesSource(value) for name, value in new.items()}, file.fileno())
        file.seek(0)
        return file.read()


def array(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size, dtype="f4")


STATE: dict[str, Any] = {
    "a": array(3_000_000),
    "b": array(7, 1),
    "c": np.zeros(0, "f4"),
    "d": array(50_000, 2),
}  # a: three blocks
NEW = {"a": array(3_000_000, 3), "c": STATE["c"], "d": array(50_000, 4)}


def files() -> dict[str, bytes]:
    """The same tensors in every container, as the libraries that own it write them."""
    made = {"safetensors": save(STATE)}
    file = io.BytesIO()
    np.savez(file, **STATE)
    made["npz"] = file.getvalue()
    torch = pytest.importorskip("torch")
    for name, new in (("torch_zip", True), ("torch_legacy", False)):
        file = io.BytesIO()
        state = {key: torch.from_numpy(value) for key, value in STATE.items()}
        torch.save(state, file, _use_new_zipfile_serialization=new)
        made[name] = file.getvalue()
    return made


@pytest.fixture(scope="module")
def containers() -> dict[str, bytes]:
    return files()


@pytest.mark.parametrize("name", ["safetensors", "npz", "torch_zip", "torch_legacy"])
def test_every_container(containers: dict[str, bytes], name: str, tmp_path: Path) -> None:
    data = containers[name]
    assert formats.locate(BytesSource(data))[0] == name
    result = rewritten(data, {key: value.tobytes() for key, value in NEW.items()}, tmp_path)
    assert len(result) == len(data) and result != data
    for key, value in load(name, result).items():
        assert np.array_equal(value, {**STATE, **NEW}[key]), key
    if zipfile.is_zipfile(io.BytesIO(result)):
        assert zipfile.ZipFile(io.BytesIO(result)).testzip() is None
    back = rewritten(result, {key: STATE[key].tobytes() for key in NEW}, tmp_path)
    assert back == data, "the checksums, too"


def load(name: str, data: bytes) -> dict[str, Any]:
    if name == "safetensors":
        return load_safetensors(data)
    if name == "npz":
        return dict(np.load(io.BytesIO(data)))
    import torch

    return {key: value.numpy() for key, value in torch.load(io.BytesIO(data), weights_only=True).items()}


def test_hdf5_and_gguf(tmp_path: Path) -> None:
    h5py, gguf = pytest.importorskip("h5py"), pytest.importorskip("gguf")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["layer/w"] = STATE["d"]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w", STATE["d"])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    for path in ("m.h5", "m.gguf"):
        data = (tmp_path / path).read_bytes()
        ((name, place),) = [(item.name, item.offset) for item in formats.locate(BytesSource(data))[1]]
        result = rewritten(data, {name: NEW["d"].tobytes()}, tmp_path)
        (tmp_path / path).write_bytes(result)
        assert result == data[:place] + NEW["d"].tobytes() + data[place + NEW["d"].nbytes :]
    with h5py.File(tmp_path / "m.h5") as file:
        assert np.array_equal(file["layer/w"], NEW["d"])
    assert np.array_equal(gguf.GGUFReader(tmp_path / "m.gguf").tensors[0].data, NEW["d"])


def test_tied_tensors_and_views(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    storage = torch.arange(100.0)
    file = io.BytesIO()
    torch.save({"whole": storage, "tied": storage, "left": storage[:60], "right": storage[40:]}, file)
    new = np.arange(1000, 1100, dtype="f4")
    one = rewritten(file.getvalue(), {"left": new[:60].tobytes()}, tmp_path)
    loaded = torch.load(io.BytesIO(one), weights_only=True)
    assert loaded["whole"].tolist() == loaded["tied"].tolist() == [*new[:60], *range(60, 100)]
    several = {"left": new[:60], "right": new[40:], "tied": new, "whole": new}
    both = rewritten(file.getvalue(), {name: value.tobytes() for name, value in several.items()}, tmp_path)
    assert torch.load(io.BytesIO(both), weights_only=True)["whole"].tolist() == new.tolist()
    with pytest.raises(ThetaError, match="shares its memory"):
        rewritten(file.getvalue(), {"left": new[:60].tobytes(), "right": new[:60].tobytes()}, tmp_path)


def test_a_member_with_a_data_descriptor(tmp_path: Path) -> None:
    """As a writer leaves it that cannot seek; numpy writes such archives into pipes."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for name, value in STATE.items():
            content = io.BytesIO()
            np.save(content, value)
            archive.writestr(f"{name}.npy", content.getvalue())
    for member in checksums(BytesSource(pipe.data)):
        assert len(member.fields) == 2 and member.fields[1] >= member.end
    result = rewritten(pipe.data, {"d": NEW["d"].tobytes()}, tmp_path)
    assert zipfile.ZipFile(io.BytesIO(result)).testzip() is None
    assert np.array_equal(np.load(io.BytesIO(result))["d"], NEW["d"])


def test_an_archive_whose_checksums_disagree(containers: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(containers["torch_zip"])
    member = max(checksums(BytesSource(bytes(data))), key=lambda member: member.end - member.start)
    data[member.fields[-1]] ^= 1  # torch's own, behind the member: nobody looks at it while locating
    with pytest.raises(FormatError, match="two checksums"):
        rewritten(bytes(data), {"a": NEW["a"].tobytes()}, tmp_path)


@pytest.mark.parametrize(("name", "size"), [("nothing", 28), ("b", 24), ("b", 32)])
def test_what_does_not_fit(name: str, size: int, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"no tensor '{name}' of {size} bytes"):
        rewritten(save({"b": STATE["b"]}), {name: bytes(size)}, tmp_path)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5), chosen=st.sets(st.integers(0, 4)))
def test_nothing_else_changes(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], chosen: set[int]) -> None:
    state = {f"t.{index}": array(size, index) for index, size in enumerate(sizes)}
    new = {f"t.{index}": array(sizes[index], 100 + index) for index in chosen if index < len(sizes)}
    folder = tmp_path_factory.mktemp("out")
    result = rewritten(save(state), {name: value.tobytes() for name, value in new.items()}, folder)
    assert result == save({**state, **new})


# -- taking the place of a file --------------------------------------------------------------------------------------


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with replacing(str(path)) as (old, new):
        assert old.read(0, 3) == b"old"
        os.write(new, b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_left_alone_if_anything_goes_wrong(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(str(path)) as (_, new):
        os.write(new, b"new")
        raise ZeroDivisionError
    with pytest.raises(ThetaError, match="changed in the meantime"), replacing(str(path)) as (_, new):
        os.write(new, b"new")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["file"]
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic"), replacing(str(link)):
        pass

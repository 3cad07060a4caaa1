"""Every kind of file is the same, byte for byte, after it was committed, left and checked out again."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo

Files = dict[str, bytes]


def there_and_back(repo: Repo, files: Files) -> None:
    """Commit files, switch to where they are not, delete the cache, and come back."""
    for path, data in files.items():
        repo.write(path, data)
    assert repo.commit("models")
    assert repo.status() == ""
    repo.git("checkout", "--quiet", "--detach", "HEAD~")
    assert not any((repo.path / path).exists() for path in files)
    for file in repo.theta.glob("catalogue*"):
        file.unlink()
    repo.git("checkout", "--quiet", "main")
    assert {path: repo.sha(path) for path in files} == {path: sha256(data).hexdigest() for path, data in files.items()}
    assert repo.status() == ""


def numbers(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(count, dtype="f4")


# -- what people have ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """A small GPT-2 as transformers saves it: whole, in shards, and as a pickled state."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=3, n_head=4, n_embd=128, vocab_size=1000))
    directory = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(directory / "whole")
    model.save_pretrained(directory / "shards", max_shard_size="1MB")
    (directory / "bin").mkdir()
    torch.save(model.state_dict(), directory / "bin" / "pytorch_model.bin")
    return {
        kind.name: {f"gpt2/{file.name}": file.read_bytes() for file in kind.iterdir()} for kind in directory.iterdir()
    }


@pytest.mark.parametrize("kind", ["whole", "shards", "bin"])
def test_gpt2(repo: Repo, gpt2: dict[str, Files], kind: str) -> None:
    there_and_back(repo, gpt2[kind])
    models = [path for path in gpt2[kind] if path.endswith(("safetensors", "bin"))]
    assert len(models) == 1 if kind != "shards" else len(models) > 2
    for path in models:
        manifest = repo.manifest(path)
        assert manifest.format == ("torch_zip" if kind == "bin" else "safetensors")
        assert any(entry.name.endswith(("wte.weight", "c_attn.weight", "c_fc.weight")) for entry in manifest.entries)


def test_gpt2_in_every_container_stores_its_tensors_once(repo: Repo, gpt2: dict[str, Files]) -> None:
    for path, data in gpt2["whole"].items():
        repo.write(f"whole/{path}", data)
    repo.commit()
    before = repo.objects()
    for kind in ("shards", "bin"):
        for path, data in gpt2[kind].items():
            repo.write(f"{kind}/{path}", data)
    repo.commit()
    added = {oid: size for oid, size in repo.objects().items() if oid not in before}
    assert sum(added.values()) < 0.02 * sum(before.values())


def test_an_optimizer_checkpoint(repo: Repo) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(100, 200), torch.nn.Linear(200, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 100)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "rng": torch.get_rng_state()},
        file,
    )
    there_and_back(repo, {"checkpoint.pt": file.getvalue()})
    names = [entry.name for entry in repo.manifest("checkpoint.pt").entries]
    assert any("exp_avg" in name for name in names)
    assert any("0.weight" in name for name in names)


def test_a_legacy_torch_file(repo: Repo) -> None:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    state = {
        "w": torch.arange(10_000.0),
        "view": torch.arange(10_000.0)[5:50],
        "half": torch.ones(7, dtype=torch.bfloat16),
    }
    torch.save(state, file, _use_new_zipfile_serialization=False)
    there_and_back(repo, {"legacy.pt": file.getvalue()})
    assert repo.manifest("legacy.pt").format == "torch_legacy"


def test_numpy_files(repo: Repo) -> None:
    plain, packed, single = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(plain, w=numbers(10_000), b=np.arange(5))
    np.savez_compressed(packed, w=np.zeros(100_000))
    np.save(single, np.asfortranarray(numbers(10_000).reshape(100, 100)))
    there_and_back(
        repo, {"plain.npz": plain.getvalue(), "packed.npz": packed.getvalue(), "single.npy": single.getvalue()}
    )
    assert repo.manifest("plain.npz").format == "npz"
    assert repo.manifest("single.npy").format == "npy"


def test_gguf(repo: Repo, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    for index in range(3):
        writer.add_tensor(f"blk.{index}.weight", numbers(8192, index).reshape(64, 128))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    there_and_back(repo, {"model.gguf": (tmp_path / "model.gguf").read_bytes()})
    assert repo.manifest("model.gguf").format == "gguf"
    assert len(repo.manifest("model.gguf").entries) == 3


def test_hdf5(repo: Repo, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["dense/kernel"] = numbers(10_000).reshape(100, 100)
        file["dense/bias"] = numbers(100)
        file.create_dataset("packed", data=np.zeros(100_000), compression="gzip", chunks=True)
        file.attrs["keras_version"] = "3"
    there_and_back(repo, {"model.h5": (tmp_path / "model.h5").read_bytes()})
    assert repo.manifest("model.h5").format == "hdf5"


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.random.default_rng(0).bytes(10 << 20),
        lambda: b"line\r\nof text\n" * 100_000,
        lambda: b"\r\n" * 10,
        lambda: b"x",
        lambda: b"",
        lambda: pickle.dumps({"w": numbers(10_000)}),
        lambda: bytes(5 << 20),
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3\n",
    ],
    ids=["random", "text", "line ends", "one byte", "empty", "pickle", "zeros", "pointer"],
)
def test_files_of_no_known_format(repo: Repo, make: Callable[[], bytes]) -> None:
    there_and_back(repo, {"file.dat": make(), "again/file.dat": make()})


def test_ten_thousand_tensors(repo: Repo) -> None:
    state = {f"layers.{index}.w": np.full(4, index, "f4") for index in range(10_000)}
    sha = repo.write("m.safetensors", state)
    repo.commit()
    before = repo.objects()
    state["layers.77.w"] += 1
    repo.write("m.safetensors", state)
    repo.commit()
    changed = repo.git("diff", "--unified=0", "HEAD~", "HEAD", "--", "m.safetensors")
    assert "param layers.77.w" in changed
    assert "layers.78.w" not in changed
    assert sum(size for oid, size in repo.objects().items() if oid not in before) < 2000
    repo.git("checkout", "--quiet", "HEAD~")
    assert repo.sha("m.safetensors") == sha
    assert repo.status() == ""


# -- where they lie --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "a b.dat",
        "ü/ö 語.dat",
        "deep/er/and/deeper/m.dat",
        "-x.dat",
        'quote\'d "m".dat',
        "$HOME;ls.dat",
        "new\nline.dat",
        "*.dat",
    ],
)
def test_paths_of_any_kind(repo: Repo, path: str) -> None:
    there_and_back(repo, {path: b"some bytes" * 1000})


def test_a_path_that_is_no_text(repo: Repo) -> None:
    there_and_back(repo, {os.fsdecode(b"caf\xe9.dat"): b"some bytes" * 1000})


def test_git_in_a_subdirectory(repo: Repo) -> None:
    sha = repo.write("sub/m.dat", b"one" * 10_000)
    repo.write("top.dat", b"top" * 10_000)
    repo.run("add", ".", "../top.dat", cwd="sub")
    repo.run("commit", "--quiet", "--message", "from below", cwd="sub")
    repo.write("sub/m.dat", b"two" * 10_000)
    assert repo.run("status", "--porcelain", cwd="sub").stdout == b" M sub/m.dat\n"
    repo.run("checkout", "--quiet", "--", "m.dat", cwd="sub")
    assert repo.sha("sub/m.dat") == sha
    assert repo.status() == ""


def test_any_stage_of_forgetting(repo: Repo) -> None:
    """The catalogue is a cache: it may be gone at any time."""

    def forget() -> None:
        for file in repo.theta.glob("catalogue*"):
            file.unlink()

    shas = []
    for value in range(3):
        shas.append(repo.write("m.safetensors", {"w": np.full(10_000, value, "f4"), "b": np.ones(3)}))
        forget()
        repo.git("add", ".")
        forget()
        repo.git("commit", "--quiet", "--message", str(value))
        forget()
        assert repo.status() == ""
        forget()
    for back in (2, 0, 1):
        repo.git("checkout", "--quiet", f"main~{back}")
        forget()
        assert repo.sha("m.safetensors") == shas[2 - back]
        assert repo.status() == ""
        forget()


# -- four gigabytes --------------------------------------------------------------------------------------------------


def enough(directory: Path) -> bool:
    """Whether 12 GiB of disk and of memory are free; the page cache counts as free, which sysconf does not know."""
    try:
        meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return False
    memory = int(meminfo["MemAvailable"].split()[0]) << 10
    return min(shutil.disk_usage(directory).free, memory) > 12 << 30


@pytest.mark.slow
@pytest.mark.parametrize("size", [4 << 30, (4 << 30) + 1])
def test_four_gigabytes(repo: Repo, size: int) -> None:
    """git keeps a file's size in 32 bits, and takes 0 for unknown."""
    if not enough(repo.path):
        pytest.skip("needs 12 GiB of memory and of disk")
    with (repo.path / "large.dat").open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"not quite empty")
    repo.git("add", "large.dat")
    repo.git("commit", "--quiet", "--message", "large")
    assert repo.status() == ""
    manifest = repo.manifest("large.dat")
    assert manifest.size == size
    assert sum(chunk.size for chunk in manifest.chunks) == size
    assert sum(repo.objects().values()) < 40 << 20

"""``git theta add`` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo
from safetensors.numpy import load_file, save_file

NAME = "dir/größe 1.safetensors"
WEIGHT = np.arange(256 * 256, dtype="<f4").reshape(256, 256) / 1000
STATE = {"h.0.q.weight": WEIGHT, "h.0.k.weight": WEIGHT * 2, "h.0.q.bias": np.ones(256, "<f4")}
LEFT, RIGHT = np.ones((256, 2), "f4"), np.full((2, 256), 0.25, "f4")


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """The repository of the first test, for the others to copy."""
    return {}


@pytest.fixture
def model(repo: Repo, made: dict[str, Path], tmp_path: Path) -> Repo:
    """A repository with one commit of one model, and beside it an adapter."""
    if "model" not in made:
        repo.write(NAME, STATE)
        repo.commit()
        made["model"] = repo.path
    adapter(tmp_path / "adapter")
    return Repo(Path(shutil.copytree(made["model"], tmp_path / "copy")))


def adapter(folder: Path, **config: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}))
    prefix = "base_model.model.model.h.0.q"
    save_file({f"{prefix}.lora_A.weight": RIGHT, f"{prefix}.lora_B.weight": LEFT}, folder / "adapter_model.safetensors")


def add(repo: Repo, *arguments: str, code: int = 0, cwd: str = ".") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["git", "theta", "add", *arguments], cwd=repo.path / cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


LORA = ("--update", "low-rank", "--from", "../adapter")


def test_without_options_it_is_git_add(repo: Repo) -> None:
    repo.write("a.safetensors", STATE)
    repo.write("notes.txt", b"text")
    assert add(repo, "--dry-run", "a.safetensors").stdout == "add 'a.safetensors'\n"
    assert repo.status() == "?? a.safetensors\n?? notes.txt"
    add(repo, ".")
    assert repo.status() == "A  a.safetensors\nA  notes.txt"
    assert "did not match" in add(repo, "nothing", code=128).stderr


def test_an_adapter(model: Repo) -> None:
    mode, base = os.stat(model.path / NAME).st_mode, model.manifest(NAME).digest
    done = add(model, "größe 1.safetensors", "--update", "low-rank", "--from", "../../adapter", cwd="dir")
    new = load_file(model.path / NAME)
    assert np.array_equal(new["h.0.q.weight"], WEIGHT + np.float32(1))
    assert np.array_equal(new["h.0.k.weight"], WEIGHT * 2)
    assert done.stdout == ""
    assert done.stderr == (
        f"größe 1.safetensors: 1 parameter updated, stored as 4.0 KiB of factors; the base is version {base}\n"
        "to undo it: git restore --staged --worktree -- 'größe 1.safetensors'\n"
    )
    assert os.stat(model.path / NAME).st_mode == mode
    assert model.status() == f'M  "{NAME}"'.replace("öß", "\\303\\266\\303\\237")
    model.git("restore", "--staged", "--worktree", "--", NAME)
    assert model.status() == ""
    assert np.array_equal(load_file(model.path / NAME)["h.0.q.weight"], WEIGHT)


def test_json_and_dry_run(model: Repo) -> None:
    base, objects = model.manifest(NAME).digest, model.objects()
    expected = {"path": NAME, "base": base, "digest": None, "parameters": ["h.0.q.weight"], "factors": 0}
    report = json.loads(add(model, NAME, *LORA, "--json", "--dry-run").stdout)
    assert report == {"version": 1, "dry_run": True, "files": [expected]}
    assert model.status() == "" and model.objects() == objects
    assert "1 parameter to be updated; the base is version" in add(model, NAME, *LORA, "-n").stderr
    (item,) = json.loads(add(model, NAME, *LORA, "--json").stdout)["files"]
    assert item == {**expected, "digest": model.manifest(NAME).digest, "factors": 4096}
    assert item["digest"] != base


def test_the_base_of_an_adapter(model: Repo, tmp_path: Path) -> None:
    digest = model.manifest(NAME).digest
    adapter(tmp_path / "adapter", theta_base="0" * 64)
    message = add(model, NAME, *LORA, code=128).stderr
    assert message == f"theta: the update was made for version {'0' * 64}, but {NAME} in HEAD is {digest}\n"
    assert model.status() == ""
    adapter(tmp_path / "adapter", theta_base=digest)
    add(model, NAME, *LORA)


@pytest.mark.parametrize("staged", [False, True])
def test_a_file_that_differs_from_head(model: Repo, *, staged: bool) -> None:
    sha = model.write(NAME, {**STATE, "h.0.q.bias": np.zeros(256, "<f4")})
    if staged:
        model.git("add", NAME)
    assert f"{NAME} differs from HEAD" in add(model, NAME, *LORA, code=128).stderr
    assert model.sha(NAME) == sha


def test_files_that_are_no_base(model: Repo) -> None:
    model.write("new.safetensors", STATE)
    assert "did not match" in add(model, "new.safetensors", *LORA, code=128).stderr
    model.git("add", "new.safetensors")
    assert "new.safetensors is not committed yet" in add(model, "new.safetensors", *LORA, code=128).stderr
    (model.path / NAME).unlink()
    model.run("checkout", "--", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    assert "is a stub: git theta pull" in add(model, NAME, *LORA, code=128).stderr


def test_an_update_that_does_not_fit_changes_nothing(model: Repo, tmp_path: Path) -> None:
    objects = model.objects()
    save_file({"h.0.q.bias": np.zeros(256, "f4"), "h.0.v.weight": WEIGHT}, tmp_path / "new.safetensors")
    done = add(model, NAME, "--update", "dense", "--from", "../new.safetensors", code=128)
    assert "the model has no parameter h.0.v.weight (closest: h.0." in done.stderr
    save_file({"h.0.q.weight": WEIGHT[:, :255].copy()}, tmp_path / "new.safetensors")
    done = add(model, NAME, "--update", "dense", "--from", "../new.safetensors", code=128)
    assert "h.0.q.weight are for a parameter of [256,255], this one is F32[256,256]" in done.stderr
    save_file({"h.0.q.bias": np.zeros(256, "f4"), "model.h.0.q.bias": np.ones(256, "f4")}, tmp_path / "new.safetensors")
    done = add(model, NAME, "--update", "dense", "--from", "../new.safetensors", code=128)
    assert "two tensors of the update are for h.0.q.bias" in done.stderr
    assert model.status() == "" and model.objects() == objects


def test_missing_words(model: Repo) -> None:
    assert "--update and --from go together" in add(model, NAME, "--update", "ia3", code=129).stderr
    assert "--update and --from go together" in add(model, NAME, "--from", "x", code=129).stderr
    assert "Missing argument" in add(model, code=129).stderr
    assert "nowhere" in add(model, NAME, "--update", "ia3", "--from", "../nowhere", code=128).stderr
    assert "nowhere" in add(model, NAME, "--update", "dense", "--from", "../nowhere", code=128).stderr
    add(model, NAME, "--update", "dense")


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_a_folder_where_a_file_is_needed(model: Repo, kind: str) -> None:
    said = add(model, NAME, "--update", kind, "--from", "../adapter", code=129).stderr
    assert f"--update {kind} takes a file, and ../adapter is a folder" in said
    assert model.status() == ""


def test_a_sparse_update_is_stored_as_a_difference(model: Repo, tmp_path: Path) -> None:
    update = {"h.0.k.weight.indices": np.array([70, 5]), "h.0.k.weight.values": np.array([1, 2], "f4")}
    save_file(update, tmp_path / "delta.safetensors")
    objects = model.objects()
    add(model, NAME, "--update-type", "sparse", "--update-data", "../delta.safetensors")
    new = load_file(model.path / NAME)["h.0.k.weight"].ravel()
    old = STATE["h.0.k.weight"].ravel()
    assert np.flatnonzero(new != old).tolist() == [5, 70]
    assert (new[5], new[70]) == (old[5] + 2, old[70] + 1)
    assert "delta" in {line.kind for line in model.manifest(NAME).objects}
    assert sum(size for oid, size in model.objects().items() if oid not in objects) < 5000


def test_a_dense_update(model: Repo, tmp_path: Path) -> None:
    save_file({"h.0.q.bias": np.zeros(256, "f4"), "h.0.k.weight": WEIGHT}, tmp_path / "new.safetensors")
    add(model, NAME, "--update", "dense", "--from", "../new.safetensors")
    new = load_file(model.path / NAME)
    assert np.array_equal(new["h.0.k.weight"], WEIGHT) and not new["h.0.q.bias"].any()


def test_where_everything_is_stored_raw(model: Repo) -> None:
    with open(model.path / ".gitattributes", "a") as attributes:
        attributes.write("*.safetensors theta-store=raw\n")
    model.commit("raw")
    add(model, NAME, *LORA)
    assert "low_rank" not in {line.kind for line in model.manifest(NAME).objects}


def test_without_a_catalogue_before_and_after(model: Repo) -> None:
    """In a fresh clone nothing is remembered; what is stored must still be found by the filter that git runs."""
    for file in model.theta.glob("catalogue*"):
        file.unlink()
    add(model, NAME, *LORA)
    assert "low_rank" in {line.kind for line in model.manifest(NAME).objects}
    sha = model.sha(NAME)
    for file in model.theta.glob("catalogue*"):
        file.unlink()
    (model.path / NAME).unlink()
    model.git("checkout", "--", NAME)
    assert model.sha(NAME) == sha and model.status()[:2] == "M "


def test_a_corrupt_base(model: Repo) -> None:
    entry = next(entry for entry in model.manifest(NAME).entries if entry.name == "h.0.q.weight")
    line = next((line for line in model.manifest(NAME).objects if line.rest[:1] == (entry.digest,)), None)
    path = Path(model.store.path(line.oid if line else entry.digest))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    sha = model.sha(NAME)
    assert "corrupt" in add(model, NAME, *LORA, code=128).stderr
    assert model.sha(NAME) == sha

"""The stat cache and the choice between the worktree file and standard input, with real git as the caller."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.catalogue import open_catalogue
from git_theta_btm.gitdir import common_directory

SETTLED = 0.05  # seconds: more than a clock tick of any file system


def settle() -> None:
    time.sleep(SETTLED)


def hash_object(repo: Repo, *arguments: str, stdin: bytes = b"") -> str:
    return repo.run("hash-object", *arguments, stdin=stdin).stdout.decode().strip()


def test_the_second_look_reads_nothing(repo: Repo) -> None:
    repo.write("m.safetensors", {"w": np.arange(100_000)})
    settle()
    expected = hash_object(repo, "m.safetensors")
    catalogue = open_catalogue(str(repo.theta))
    path = str(repo.path / "m.safetensors")
    with_key = catalogue._ask(str, "SELECT key FROM stat WHERE path = ?", os.fsencode(path))
    catalogue.close()
    assert with_key
    assert hash_object(repo, "m.safetensors") == expected


@pytest.mark.parametrize("restore", [True, False])
def test_an_edit_of_the_same_size_is_noticed(repo: Repo, restore: bool) -> None:  # noqa: FBT001
    repo.write("m.safetensors", {"w": np.zeros(10_000)})
    settle()
    repo.commit()
    before = (repo.path / "m.safetensors").stat()
    assert repo.status() == ""
    sha = repo.write("m.safetensors", {"w": np.ones(10_000)})
    if restore:
        os.utime(repo.path / "m.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert repo.status() == " M m.safetensors"
    repo.commit()
    repo.git("checkout", "--quiet", "HEAD~")
    repo.git("checkout", "--quiet", "main")
    assert repo.sha("m.safetensors") == sha


def test_edits_right_after_each_other_are_noticed(repo: Repo) -> None:
    shas = []
    for value in range(8):
        shas.append(repo.write("m.safetensors", {"w": np.full(5000, value, "f4")}))
        repo.git("add", ".")
        repo.git("commit", "--quiet", "--message", f"value {value}")
    assert repo.git("rev-list", "--count", "HEAD") == "9"
    for back, sha in enumerate(reversed(shas)):
        repo.git("checkout", "--quiet", f"main~{back}")
        assert repo.sha("m.safetensors") == sha


def test_an_edit_in_place_right_after_add_is_noticed(repo: Repo) -> None:
    for value in range(10):
        repo.write("m.dat", b"%04d" % value * 100)
        repo.git("add", "m.dat")
        with (repo.path / "m.dat").open("r+b") as file:
            file.write(b"edit")
        assert repo.status() == "AM m.dat"


# -- git feeds another file than the one at the path -----------------------------------------------------------------


def test_hash_object_with_another_file(repo: Repo) -> None:
    repo.write("model.dat", b"the model" * 100)
    repo.write("other.dat", b"the other" * 100)
    own, other = hash_object(repo, "model.dat"), hash_object(repo, "other.dat")
    settle()
    assert own != other
    for _ in range(2):
        assert hash_object(repo, "model.dat") == own
        assert hash_object(repo, "--path=model.dat", "other.dat") == other
        assert hash_object(repo, "--path=model.dat", "--stdin", stdin=b"the other" * 100) == other
        assert hash_object(repo, "--path=other.dat", "model.dat") == own


def test_hash_object_of_the_model_itself_at_another_position(repo: Repo) -> None:
    """Standard input may be the file at the path, and yet not all of it."""
    repo.write("model.dat", b"head" + b"the rest")
    rest = hash_object(repo, "--path=model.dat", "--stdin", stdin=b"the rest")
    with (repo.path / "model.dat").open("rb", buffering=0) as file:
        file.seek(4)
        done = subprocess.run(
            ["git", "hash-object", "--path=model.dat", "--stdin"],
            cwd=repo.path,
            stdin=file,
            capture_output=True,
            check=True,
        )
    assert done.stdout.decode().strip() == rest


CALLER = """
import mmap, os, subprocess, sys
file = open("model.dat", "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
descriptor = os.dup(file.fileno())
os.set_inheritable(descriptor, sys.argv[1] == "inherited")
subprocess.run(sys.argv[2:], input=b"the other" * 100, check=True, close_fds=False)
"""


@pytest.mark.parametrize("how", ["inherited", "own"])
def test_a_caller_that_has_the_model_open_itself(repo: Repo, how: str) -> None:
    """A training program may keep its checkpoint open or mapped while it runs git."""
    repo.write("model.dat", b"the model" * 100)
    expected = hash_object(repo, "--path=model.dat", "--stdin", stdin=b"the other" * 100)
    command = ["git", "hash-object", "--path=model.dat", "--stdin"]
    for prefix in ([], ["sh", "-c", '"$@"; exit $?', "sh"]):
        done = subprocess.run(
            [sys.executable, "-c", CALLER, how, *prefix, *command], cwd=repo.path, capture_output=True, check=True
        )
        assert done.stdout.decode().strip() == expected


def test_merge_with_renormalize_keeps_every_side_apart(repo: Repo) -> None:
    repo.write("m.safetensors", {"w": np.zeros(10_000)})
    repo.commit("seed")
    repo.git("checkout", "--quiet", "-b", "legal")
    sha = repo.write("m.safetensors", {"w": np.ones(10_000)})
    repo.commit("legal")
    repo.git("checkout", "--quiet", "main")
    repo.write("notes.txt", b"more")
    repo.commit("notes")
    settle()
    repo.git("merge", "--quiet", "-X", "renormalize", "legal")
    assert repo.sha("m.safetensors") == sha
    assert repo.status() == ""


# -- what is recorded wins -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
def test_a_manifest_that_packs_otherwise_stays_clean(repo: Repo, tmp_path: Path, kept: bool) -> None:  # noqa: FBT001
    """Two repositories that pack the same small tensors with different neighbours."""
    small = {f"b.{index}": np.full(100, index, "f4") for index in range(20)}
    repo.write("first.safetensors", dict(list(small.items())[:7]))
    repo.commit()
    repo.write("m.safetensors", small)
    repo.commit()
    text = repo.blob("m.safetensors")
    assert len(repo.manifest("m.safetensors").objects) == 2
    repo.git("rm", "--quiet", "--cached", "m.safetensors")
    for file in repo.theta.glob("catalogue*"):
        file.unlink()
    repo.git("add", "m.safetensors")  # alone, it is packed in one
    assert len(repo.manifest("m.safetensors").objects) == 1
    repo.git("reset", "--quiet", "--hard", "HEAD")
    assert repo.blob("m.safetensors") == text
    if not kept:
        for file in repo.theta.glob("catalogue*"):
            file.unlink()
    settle()
    os.utime(repo.path / "m.safetensors")
    assert repo.status() == ""
    repo.git("add", "m.safetensors")
    assert repo.blob("m.safetensors") == text


# -- where the repository is -----------------------------------------------------------------------------------------


def test_the_common_directory(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.git("worktree", "add", "--quiet", str(tmp_path / "linked"))
    (repo.path / "sub" / "dir").mkdir(parents=True)
    expected = str(repo.path / ".git")
    for place in (repo.path, repo.path / "sub" / "dir", tmp_path / "linked", repo.path / ".git"):
        monkeypatch.chdir(place)
        assert common_directory() == expected
    monkeypatch.chdir(repo.path)
    monkeypatch.setenv("GIT_DIR", ".git/worktrees/linked")
    assert common_directory() == expected

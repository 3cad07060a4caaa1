"""The commands that put models into the worktree and take them out, as a user runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.repository import read_stub

NAME = "dir/my model.safetensors"


@pytest.fixture
def repo(repo: Repo) -> Repo:
    """Branches ``main`` and ``legal`` of one model."""
    state = {f"h.{index}": np.random.default_rng(index).standard_normal(9000, dtype="f4") for index in range(3)}
    repo.write(NAME, state)
    repo.commit()
    repo.git("checkout", "--quiet", "-b", "legal")
    repo.write(NAME, state | {"h.1": state["h.1"] * 2})
    repo.commit()
    return repo


def theta(repo: Repo, *arguments: str, code: int = 0, cwd: str = ".") -> str:
    """What a command says on standard error; on standard output it says nothing."""
    done = subprocess.run(
        ["git", "theta", *arguments], cwd=repo.path / cwd, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_switch_says_what_git_says_and_what_was_written(repo: Repo) -> None:
    assert theta(repo, "switch", "main") == "Switched to branch 'main'\n1 file written, 105.7 KiB\n"
    assert theta(repo, "switch", "-c", "new") == "Switched to a new branch 'new'\n"
    assert theta(repo, "switch", "-q", "legal", cwd="dir") == "1 file written, 105.7 KiB\n"
    assert theta(repo, "switch", "nothing", code=128) == "fatal: invalid reference: nothing\n"
    assert "usage: git switch" in theta(repo, "switch", "--nonsense", code=129)


def test_help_is_ours(repo: Repo) -> None:
    for command in ("switch", "clone"):
        for option in (["-h"], ["--help"]):
            done = subprocess.run(["git-theta", command, *option], capture_output=True, text=True, check=True)
            assert done.stdout.startswith(f"Usage: git theta {command} ")


def test_a_switch_needs_a_worktree(tmp_path: Path) -> None:
    bare = Repo(tmp_path)
    bare.git("init", "--quiet", "--bare")
    assert "bare repository" in theta(bare, "switch", "main", code=128)


def test_out_and_in_again(repo: Repo) -> None:
    assert theta(repo, "dematerialize") == "1 file dematerialized, 105.7 KiB\n"
    assert read_stub(str(repo.path / NAME)) == repo.blob(NAME)
    assert theta(repo, "dematerialize", "my model.safetensors", cwd="dir") == "0 files dematerialized, 0 B\n"
    assert theta(repo, "materialize", "my model.safetensors", cwd="dir") == "1 file restored, 105.7 KiB\n"
    assert repo.status() == ""
    assert "did not match any file" in theta(repo, "materialize", "nothing", code=128)


def test_what_cannot_be_done_is_named(repo: Repo) -> None:
    with (repo.path / NAME).open("ab") as file:
        file.write(b"more")
    said = theta(repo, "dematerialize", code=1)
    assert f"theta: {NAME}: it is modified" in said
    assert "it stays\n0 files dematerialized" in said
    repo.git("checkout", "--", NAME)
    theta(repo, "dematerialize")
    gone = next(repo.manifest(NAME).needs()).digest
    os.unlink(repo.store.path(gone))
    said = theta(repo, "materialize", code=1)
    assert f"object {gone} is not in the store" in said
    assert "it is still a stub" in said


def test_a_clone(repo: Repo, tmp_path: Path, home: Path) -> None:
    theta(repo, "install")
    repo.git("init", "--quiet", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    repo.git("push", "--quiet", "--all", "origin")
    theta_push = subprocess.run(
        ["git", "theta", "push", "--all", "origin"], cwd=repo.path, check=True, capture_output=True
    )
    assert theta_push.returncode == 0
    outside = Repo(tmp_path)
    url = str(tmp_path / "remote.git")
    assert "1 file written, 105.7 KiB\n" in theta(outside, "clone", "-b", "legal", "--quiet", url, "full")
    assert theta(outside, "clone", "--quiet", "--lazy", "-b", "legal", url, "lazy") == ""
    full, lazy = Repo(tmp_path / "full"), Repo(tmp_path / "lazy")
    assert full.sha(NAME) == repo.sha(NAME)
    assert read_stub(str(lazy.path / NAME)) == repo.blob(NAME)
    assert "1 file restored" in theta(lazy, "pull")
    assert lazy.sha(NAME) == repo.sha(NAME)
    assert full.status() == lazy.status() == ""
    assert "does not exist" in theta(outside, "clone", "-q", str(tmp_path / "nothing"), "other", code=128)

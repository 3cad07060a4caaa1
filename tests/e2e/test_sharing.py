"""Bundles and mirrors: ways to share on which git-lfs does not come along by itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.git import Git
from git_theta_btm.remotes.hooks import state
from git_theta_btm.repository import read_stub
from git_theta_btm.setup.install import install

NAME = "model.safetensors"


@pytest.fixture
def shared(repo: Repo, home: Path, tmp_path: Path) -> Repo:
    """A repository whose model has been pushed to a directory."""
    install(Git(str(home)), "global")
    bare(tmp_path / "shared.git")
    repo.git("remote", "add", "origin", str(tmp_path / "shared.git"))
    repo.write(NAME, {f"h{index}": np.full(9_000, index, "f4") for index in range(2)})
    repo.commit()
    repo.git("push", "--quiet", "origin", "main")
    return repo


def bare(path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)


def clone(source: Path, path: Path, *options: str) -> Repo:
    subprocess.run(["git", "clone", "--quiet", *options, str(source), str(path)], check=True, capture_output=True)
    return Repo(path)


def lfs_objects(path: Path) -> set[str]:
    return {file.name for file in (path / "lfs").rglob("?" * 64)}


def codes(repo: Repo, code: int) -> list[str]:
    done = repo.run("theta", "doctor", "--json", check=False)
    assert done.returncode == code
    return [finding["code"] for finding in json.loads(done.stdout)["findings"]]


@pytest.mark.parametrize("command", ["fetch", "pull"])
def test_a_remote_that_has_no_objects_does_not_end_the_search(shared: Repo, tmp_path: Path, command: str) -> None:
    shared.git("bundle", "create", "--quiet", str(tmp_path / "x.bundle"), "main")
    other = clone(tmp_path / "x.bundle", tmp_path / "other", "--branch", "main")
    assert read_stub(str(other.path / NAME))
    alone = other.run("theta", command, check=False)
    assert alone.returncode == 1 and f"there is no repository at {tmp_path}/x.bundle" in alone.stderr.decode()
    other.git("remote", "add", "up", str(tmp_path / "shared.git"))
    other.git("theta", command)
    if command == "pull":
        assert other.sha(NAME) == shared.sha(NAME)
    assert other.objects() == shared.objects()
    bare(tmp_path / "new.git")
    other.git("push", "--quiet", str(tmp_path / "new.git"), "main")
    assert lfs_objects(tmp_path / "new.git") == shared.objects().keys()


def test_a_mirror_is_pushed_with_its_objects(shared: Repo, tmp_path: Path) -> None:
    mirror = clone(tmp_path / "shared.git", tmp_path / "mirror.git", "--mirror")
    assert codes(mirror, 1) == ["hook-missing"]
    mirror.git("theta", "fetch", "--all")
    assert state(Git(str(mirror.path))) == "installed"
    assert codes(mirror, 0) == []
    bare(tmp_path / "new.git")
    mirror.git("push", "--quiet", "--mirror", str(tmp_path / "new.git"))
    assert lfs_objects(tmp_path / "new.git") == shared.objects().keys()
    assert Repo(tmp_path / "new.git").git("for-each-ref") == mirror.git("for-each-ref")
    assert clone(tmp_path / "new.git", tmp_path / "other").sha(NAME) == shared.sha(NAME)


def test_a_bare_repository_without_models_needs_no_hook(repo: Repo, home: Path, tmp_path: Path) -> None:
    install(Git(str(home)), "global")
    (repo.path / ".gitattributes").write_text("*.txt text\n")
    repo.commit()
    assert codes(clone(repo.path, tmp_path / "mirror.git", "--mirror", "--single-branch"), 0) == []
    bare(tmp_path / "empty.git")
    assert codes(Repo(tmp_path / "empty.git"), 0) == []

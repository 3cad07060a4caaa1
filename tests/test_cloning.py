from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo, surroundings

from git_theta_btm.checkout.cloning import Cloned, clone
from git_theta_btm.checkout.worktree import Means
from git_theta_btm.git import Git
from git_theta_btm.repository import read_stub
from git_theta_btm.setup.install import install

NAME = "m.safetensors"
STATE = {f"h.{index}": np.random.default_rng(index).standard_normal(9000, dtype="f4") for index in range(3)}


@pytest.fixture(scope="module")
def remote(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository beside git-lfs's way to keep objects, with a branch ``other``."""
    directory = tmp_path_factory.mktemp("remote")
    repo = Repo(Path(shutil.copytree(template, directory / "repo", symlinks=True)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(directory).items():
            patch.setenv(name, value)
        repo.write(NAME, STATE)
        repo.commit()
        repo.git("checkout", "--quiet", "-b", "other")
        repo.write(NAME, STATE | {"h.1": STATE["h.1"] * 2})
        repo.commit()
        repo.git("checkout", "--quiet", "main")
        repo.git("init", "--quiet", "--bare", "--initial-branch=main", str(directory / "remote.git"))
        repo.git("remote", "add", "origin", str(directory / "remote.git"))
        repo.git("push", "--quiet", "--all", "origin")
        repo.git("theta", "push", "--all", "origin")
    return directory


@pytest.fixture
def directory(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory of a user who has the filters."""
    install(Git(str(home)), "global")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def fetch(remote: Path) -> Means:
    """Objects come straight from the repository that was pushed."""
    source, target = Repo(remote / "repo").store, Repo(Path("clone")).store

    def get(blobs: object) -> None:
        assert isinstance(blobs, list)
        for blob in blobs:
            os.makedirs(os.path.dirname(target.path(blob.digest)), exist_ok=True)
            shutil.copyfile(source.path(blob.digest), target.path(blob.digest))

    return Means({}, get)


def cloned(remote: Path, *options: str, lazy: bool = False) -> Cloned:
    return clone(["--quiet", str(remote / "remote.git"), "clone", *options], lambda _: fetch(remote), lazy=lazy)


def test_models_are_written(directory: Path, remote: Path) -> None:
    done = cloned(remote, "--branch", "other", "--origin", "upstream")
    repo = Repo(directory / "clone")
    assert done.code == 0
    assert [(outcome.path, outcome.problem) for outcome in done.outcomes] == [(NAME, "")]
    assert repo.git("diff-files") == repo.status() == ""
    assert repo.sha(NAME) != Repo(remote / "repo").sha(NAME)
    assert repo.git("remote") == "upstream"
    assert repo.git("branch", "--show-current") == "other"
    assert repo.run("config", "--local", "--get-regexp", r"^filter\.", check=False).stdout == b""


def test_where_it_goes_is_left_to_git(directory: Path, remote: Path) -> None:
    assert clone(["-q", str(remote / "remote.git")], lambda _: Means({}), lazy=True).code == 0
    assert read_stub(str(directory / "remote" / NAME)) is not None


def test_a_lazy_clone_has_stubs_and_goes_on_to(directory: Path, remote: Path) -> None:
    done = cloned(remote, lazy=True)
    repo = Repo(directory / "clone")
    assert (done.code, done.outcomes) == (0, [])
    assert read_stub(str(directory / "clone" / NAME)) == repo.blob(NAME)
    assert repo.objects() == {}
    repo.git("switch", "--quiet", "other")
    assert read_stub(str(directory / "clone" / NAME)) == repo.blob(NAME, "other")
    assert repo.status() == ""
    repo.git("theta", "install", "--local")
    repo.git("theta", "pull", NAME)
    repo.git("switch", "--quiet", "main")
    assert repo.status() == ""
    assert "--skip" not in repo.git("config", "filter.theta.smudge")


@pytest.mark.parametrize("lazy", [False, True])
def test_without_the_filters_they_are_installed_in_the_clone(
    directory: Path, home: Path, remote: Path, *, lazy: bool
) -> None:
    (home / ".gitconfig").unlink()
    assert cloned(remote, lazy=lazy).code == 0
    repo = Repo(directory / "clone")
    assert (read_stub(str(directory / "clone" / NAME)) is not None) == lazy
    assert ("--skip" in repo.git("config", "--local", "filter.theta.smudge")) == lazy
    assert repo.git("config", "--local", "filter.theta.required") == "true"
    assert repo.status() == ""


def test_the_repository_around_has_no_say(directory: Path, home: Path, remote: Path) -> None:
    (home / ".gitconfig").unlink()
    Git(str(directory)).run("init", "--quiet")
    install(Git(str(directory)), "local")
    assert cloned(remote).outcomes[0].problem == ""
    assert Repo(directory / "clone").status() == ""


@pytest.mark.parametrize("option", ["--bare", "--mirror", "--no-checkout"])
def test_a_clone_without_files(directory: Path, remote: Path, option: str) -> None:
    done = cloned(remote, option)
    assert (done.code, done.outcomes) == (0, [])


def test_a_clone_that_fails(directory: Path, remote: Path) -> None:
    done = clone(["--quiet", str(directory / "nothing"), "clone"], lambda _: Means({}), lazy=False)
    assert (done.code, done.repository) == (128, None)
    assert not (directory / "clone").exists()

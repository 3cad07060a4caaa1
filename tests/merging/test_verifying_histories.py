"""Verifying where git knows several common ancestors, and where the history is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from branches import MODEL, message, pack, seed, sprout, theta, trained
from conftest import Once, Repo

from git_theta_btm.errors import ThetaError
from git_theta_btm.merging.verifying import verify
from git_theta_btm.repository import Repository

OTHER = "other.safetensors"


def build(repo: Repo) -> None:
    """one changed both models, two the first. left and right each merged them and trained one further."""
    repo.write(MODEL, pack(seed()))
    repo.write(OTHER, pack(seed()))
    repo.commit("seed")
    sprout(repo, {"one": {MODEL: pack(trained(1)), OTHER: pack(trained(3))}, "two": {MODEL: pack(trained(2))}})
    for name, start, remote, path in (("left", "two", "one", MODEL), ("right", "one", "two", OTHER)):
        repo.git("checkout", "--quiet", "-b", name, start)
        theta(repo, "merge", remote)
        repo.write(path, pack({**seed(), "h.1.w": trained(7)["h.1.w"]}))
        repo.commit("train")
    repo.git("checkout", "--quiet", "main")


@pytest.fixture
def repo(repo: Repo, once: Once) -> Repo:
    return once(repo, build)


def differences(repo: Repo) -> list[tuple[str, str]]:
    report = verify(Repository(str(repo.path)), "HEAD")
    return [(item.path, item.parameter) for item in report.differences]


@pytest.mark.parametrize("words", [["theta", "merge"], pytest.param(["merge", "--no-edit"], marks=pytest.mark.slow)])
def test_several_common_ancestors(repo: Repo, words: list[str]) -> None:
    repo.git("checkout", "--quiet", "left")
    assert len(repo.git("merge-base", "--all", "left", "right").split()) == 2
    repo.git(*words, "right")
    assert repo.manifest(OTHER).digest == repo.manifest(OTHER, "right").digest
    assert differences(repo) == []
    repo.write(OTHER, pack({**seed(), "h.2.w": trained(5)["h.2.w"]}))
    repo.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    assert {path for path, _ in differences(repo)} == {OTHER}


def shallow(repo: Repo, tmp_path: Path, *options: str) -> Repo:
    clone = Repo(tmp_path / "shallow")
    repo.git("clone", "--quiet", "--depth=1", *options, f"file://{repo.path}", str(clone.path))
    return clone


def test_a_merge_without_its_history(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    repo.git("checkout", "--quiet", "-b", "both", "one")
    theta(repo, "merge", "two")
    clone = shallow(repo, tmp_path, "--branch=both")
    commits = [line.split()[1] for line in message(clone).splitlines() if line.startswith("Theta-Expert")]
    clone.git("fetch", "--quiet", "--depth=1", "origin", *commits)
    with pytest.raises(ThetaError, match="git fetch --unshallow"):
        differences(clone)
    clone.git("fetch", "--quiet", "--depth=1", "origin", repo.git("rev-parse", "main"))
    assert differences(clone) == []
    clone.git("fetch", "--quiet", "--unshallow")
    assert differences(clone) == []


def test_a_merge_that_was_made_without_its_history(repo: Repo, tmp_path: Path) -> None:
    clone = shallow(repo, tmp_path, "--no-single-branch", "--branch=one")
    clone.git("theta", "install", "--local")
    theta(clone, "merge", "origin/two", "--allow-unrelated-histories")
    assert "Theta-Base" not in message(clone)
    assert clone.sha(OTHER) != repo.sha(OTHER)
    clone.git("fetch", "--quiet", "--unshallow")
    assert differences(clone) == []

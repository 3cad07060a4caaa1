from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.repository import Repository, read_stub
from git_theta_btm.worktree import adopt, materialise

STATE = {"w": np.arange(40_000, dtype="<f4"), "b": np.ones(3, "<f4")}
NAME = "dir/my model.safetensors"


@pytest.fixture
def stub(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A model that was checked out as a stub."""
    repo.write(NAME, STATE)
    repo.commit()
    (repo.path / NAME).unlink()
    repo.run("checkout", "--", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    monkeypatch.chdir(repo.path)
    assert read_stub(NAME) == repo.blob(NAME)
    return repo


def expected(repo: Repo) -> bytes:
    return repo.run("cat-file", "--filters", f"HEAD:{NAME}").stdout


def test_the_file_comes_back_and_git_sees_no_change(stub: Repo) -> None:
    os.chmod(NAME, 0o755)
    stub.git("update-index", "--chmod=+x", NAME)
    stub.git("commit", "--quiet", "-m", "executable")
    outcomes = materialise(Repository(), Repository().models())
    assert [(outcome.path, outcome.problem) for outcome in outcomes] == [(NAME, "")]
    assert Path(NAME).read_bytes() == expected(stub)
    assert outcomes[0].size == len(expected(stub))
    assert stub.status() == ""
    assert os.stat(NAME).st_mode & 0o777 == 0o755
    assert os.listdir("dir") == ["my model.safetensors"]


def test_what_is_no_stub_is_left_alone(stub: Repo) -> None:
    stub.write(NAME, b"my own work")
    assert materialise(Repository(), Repository().models()) == []
    assert Path(NAME).read_bytes() == b"my own work"


def test_a_stub_of_another_version_becomes_that_version(stub: Repo) -> None:
    other = stub.blob(NAME)
    stub.write(NAME, {"w": np.zeros(40_000, "<f4")})
    stub.commit()
    stub.write(NAME, other)
    assert materialise(Repository(), Repository().models())[0].problem == ""
    assert Path(NAME).read_bytes() == stub.run("cat-file", "--filters", f"HEAD~1:{NAME}").stdout
    assert stub.status() == f' M "{NAME}"'


def test_a_missing_object_leaves_the_stub(stub: Repo) -> None:
    gone = next(stub.manifest(NAME).needs())
    Path(stub.store.path(gone.digest)).unlink()
    (outcome,) = materialise(Repository(), Repository().models())
    assert gone.digest in outcome.problem
    assert read_stub(NAME) == stub.blob(NAME)
    assert os.listdir("dir") == ["my model.safetensors"]


def test_a_broken_stub_stays(stub: Repo) -> None:
    stub.write(NAME, stub.blob(NAME) + b"more\n")
    (outcome,) = materialise(Repository(), Repository().models())
    assert "unknown line" in outcome.problem


def test_nothing_is_written_beyond_a_symbolic_link(stub: Repo, tmp_path: Path) -> None:
    text = stub.blob(NAME)
    outside = tmp_path / "outside"
    (stub.path / "dir").rename(outside)
    (stub.path / "dir").symlink_to(outside)
    (outcome,) = materialise(Repository(), Repository().models())
    assert "symbolic link" in outcome.problem
    assert (outside / "my model.safetensors").read_bytes() == text


def lfs_copy(repo: Repo, digest: str) -> Path:
    """Move an object from our store to that of git-lfs."""
    theirs = repo.path / ".git/lfs/objects" / digest[:2] / digest[2:4] / digest
    theirs.parent.mkdir(parents=True)
    os.replace(repo.store.path(digest), theirs)
    return theirs


def test_objects_of_git_lfs_are_linked(stub: Repo) -> None:
    blob = next(stub.manifest(NAME).needs())
    theirs = lfs_copy(stub, blob.digest)
    assert materialise(Repository(), Repository().models())[0].problem == ""
    assert os.path.samefile(theirs, stub.store.path(blob.digest))


def test_a_wrong_object_of_git_lfs_is_not_taken(stub: Repo) -> None:
    blob = next(stub.manifest(NAME).needs())
    theirs = lfs_copy(stub, blob.digest)
    theirs.chmod(0o644)
    theirs.write_bytes(bytes(blob.size))
    assert not adopt(Repository(), blob)
    assert stub.store.size(blob.digest) is None

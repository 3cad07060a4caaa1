from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.checkout.worktree import Means, dematerialise, materialise
from git_theta_btm.errors import ThetaError
from git_theta_btm.manifest import Blob
from git_theta_btm.repository import Repository, read_stub

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
    (outcome,) = materialise(Repository(), Repository().models())
    assert blob.digest in outcome.problem
    assert stub.store.size(blob.digest) is None


def test_objects_are_fetched_together_and_progress_is_told(stub: Repo, tmp_path: Path) -> None:
    gone = {blob.digest for blob in stub.manifest(NAME).needs()}
    for digest in gone:
        os.replace(stub.store.path(digest), tmp_path / digest)
    asked, told = [], []

    def fetch(blobs: Sequence[Blob]) -> None:
        asked.append({blob.digest for blob in blobs})
        for blob in blobs:
            os.replace(tmp_path / blob.digest, stub.store.path(blob.digest))

    means = Means({}, fetch, lambda done, total: told.append((done, total)))
    (outcome,) = materialise(Repository(), Repository().models(), means)
    assert asked == [gone]
    assert told[-1] == (outcome.size, outcome.size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert Path(NAME).read_bytes() == expected(stub)


def test_the_next_status_knows_the_file(stub: Repo, tmp_path: Path) -> None:
    materialise(Repository(), Repository().models())
    stub.git("config", "filter.theta.clean", f"echo %f >>'{tmp_path}/cleaned'; git-theta-filter clean -- %f")
    assert stub.git("diff-files") == ""
    assert stub.status() == ""
    assert not (tmp_path / "cleaned").exists()


def test_a_file_that_git_was_not_told_of_is_made_up_for(stub: Repo) -> None:
    """As when a process is killed between the two."""
    Path(NAME).write_bytes(expected(stub))
    assert stub.status() == f' M "{NAME}"'
    assert materialise(Repository(), Repository().models()) == []
    assert stub.status() == ""
    stub.write(NAME, STATE | {"b": np.zeros(3, "<f4")})
    materialise(Repository(), Repository().models())
    assert stub.status() == f' M "{NAME}"'


def test_a_mode_is_left_for_the_user_to_stage(stub: Repo) -> None:
    os.chmod(NAME, 0o755)
    content = expected(stub)
    for job in (materialise, materialise, dematerialise):  # a stub, a file with nothing to do, and a file
        job(Repository(), Repository().models())
        assert stub.status() == f' M "{NAME}"'
        assert os.stat(NAME).st_mode & 0o777 == 0o755
    Path(NAME).write_bytes(content)  # git was not told of this size
    materialise(Repository(), Repository().models())
    assert stub.status() == f' M "{NAME}"'
    os.chmod(NAME, 0o644)
    assert stub.status() == ""


def test_a_symbolic_link_to_the_same_bytes_stays_a_modification(stub: Repo, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(expected(stub))
    Path(NAME).unlink()
    Path(NAME).symlink_to(tmp_path / "elsewhere")
    assert materialise(Repository(), Repository().models()) == []
    assert dematerialise(Repository(), Repository().models())[0].problem != ""
    assert stub.status() == f' T "{NAME}"'


def test_without_the_filters_nothing_is_touched(stub: Repo) -> None:
    stub.git("theta", "uninstall", "--local")
    for job in (materialise, dematerialise):
        with pytest.raises(ThetaError, match="git theta install"):
            job(Repository(), Repository().models())
    assert read_stub(NAME) == stub.blob(NAME)


# -- dematerialise ---------------------------------------------------------------------------------------------------


@pytest.fixture
def real(stub: Repo) -> Repo:
    """The same model as a file, and executable."""
    materialise(Repository(), Repository().models())
    os.chmod(NAME, 0o755)
    stub.commit("executable")
    return stub


def test_a_file_becomes_its_stub_and_comes_back(real: Repo) -> None:
    content = Path(NAME).read_bytes()
    (outcome,) = dematerialise(Repository(), Repository().models())
    assert (outcome.problem, outcome.size) == ("", len(content))
    assert read_stub(NAME) == real.blob(NAME)
    assert os.stat(NAME).st_mode & 0o777 == 0o755
    assert real.git("diff-files") == real.status() == ""
    assert dematerialise(Repository(), Repository().models()) == []
    assert materialise(Repository(), Repository().models())[0].problem == ""
    assert Path(NAME).read_bytes() == content
    assert real.git("diff-files") == real.status() == ""


@pytest.mark.parametrize("hidden", [False, True], ids=["plainly", "by assume-unchanged"])
def test_a_modified_file_stays(real: Repo, *, hidden: bool) -> None:
    if hidden:
        real.git("update-index", "--assume-unchanged", NAME)
    sha = real.write(NAME, STATE | {"b": np.zeros(3, "<f4")})
    (outcome,) = dematerialise(Repository(), Repository().models())
    assert "modified" in outcome.problem
    assert real.sha(NAME) == sha


@pytest.mark.parametrize("kind", ["missing", "corrupt"])
def test_a_file_whose_objects_are_not_all_right_stays(real: Repo, kind: str) -> None:
    sha = real.sha(NAME)
    for blob in real.manifest(NAME).needs():
        path = Path(real.store.path(blob.digest))
        path.chmod(0o644)
        path.write_bytes(bytes(blob.size)) if kind == "corrupt" else path.unlink()
    (outcome,) = dematerialise(Repository(), Repository().models())
    assert ("not in the store" if kind == "missing" else "corrupt") in outcome.problem
    assert real.sha(NAME) == sha
    assert real.status() == ""


def test_a_file_that_git_holds_itself_stays(real: Repo) -> None:
    oid = real.run("hash-object", "-w", "--stdin", stdin=b"no manifest").stdout.decode().strip()
    real.git("update-index", "--cacheinfo", f"100755,{oid},{NAME}")
    (outcome,) = dematerialise(Repository(), Repository().models())
    assert "git holds the file itself" in outcome.problem

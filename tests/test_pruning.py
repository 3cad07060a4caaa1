from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Once, Repo

from git_theta_btm.care import pruning
from git_theta_btm.care.fsck import Options as FsckOptions
from git_theta_btm.care.fsck import fsck
from git_theta_btm.care.pruning import Options, Report, prune
from git_theta_btm.errors import ThetaError
from git_theta_btm.repository import Repository
from git_theta_btm.store import put

NAME = "dir/model.safetensors"
HOUR = 3600.0


def state(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"h.0.w": random.standard_normal(40_000).astype("<f4"), "h.0.b": random.standard_normal(3).astype("<f4")}


def two_versions(repo: Repo) -> None:
    for seed in (1, 2):
        repo.write(NAME, state(seed))
        repo.commit()


@pytest.fixture
def repo(repo: Repo, once: Once) -> Repo:
    """A repository with two versions of a model, all of it a day old."""
    copy = once(repo, two_versions)
    age(copy)
    return copy


def age(repo: Repo) -> None:
    """Make everything that is stored and remembered a day old."""
    for oid in repo.store:
        os.utime(repo.store.path(oid), (time.time() - 24 * HOUR,) * 2)
    connection = sqlite3.connect(repo.theta / "catalogue.sqlite3", isolation_level=None)
    connection.execute("UPDATE manifest SET used = used - 24 * 3600 * 1000000000")
    connection.execute("DELETE FROM stat WHERE CAST(path AS TEXT) NOT LIKE ?", (f"{repo.path}/%",))  # of the original
    connection.close()


def forget(repo: Repo) -> None:
    """Have git forget what no ref leads to."""
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")


def pruned(*, dry_run: bool = False) -> Report:
    return prune(Repository(), Options(time.time() - HOUR, dry_run))


def is_whole() -> bool:
    return fsck(Repository(), FsckOptions()).problems == ()


def garbage(repo: Repo, data: bytes = b"nobody needs this") -> str:
    oid = put(repo.store, data)
    age(repo)
    return oid


def test_nothing_goes_that_is_needed(repo: Repo) -> None:
    before = repo.objects()
    report = pruned()
    assert report == Report((), len(before), 0)
    assert repo.objects() == before


def test_what_nobody_needs_goes(repo: Repo) -> None:
    before = repo.objects()
    oid = garbage(repo)
    assert [blob.digest for blob in pruned(dry_run=True).removed] == [oid]
    assert oid in repo.objects()
    report = pruned()
    assert [(blob.digest, blob.size) for blob in report.removed] == [(oid, 17)]
    assert (report.needed, report.young) == (len(before), 0)
    assert repo.objects() == before


def test_what_is_young_stays(repo: Repo) -> None:
    oid = put(repo.store, b"being written")
    assert pruned().young == 1
    assert oid in repo.objects()


def test_a_version_goes_once_git_forgot_it(repo: Repo) -> None:
    alone = set(repo.objects()) - {str(blob.digest) for blob in repo.manifest(NAME, "HEAD~1").needs()}
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    age(repo)
    assert pruned().removed == ()
    forget(repo)
    assert {blob.digest for blob in prune(Repository(), Options(time.time())).removed} == alone
    assert alone
    assert is_whole()
    repo.write(NAME, state(2))
    repo.commit()
    assert alone <= set(repo.objects())
    assert is_whole()


@pytest.mark.parametrize("keeper", ["index", "stash", "reflog", "worktree", "tag", "note", "nothing", "other index"])
def test_everything_that_git_has_keeps_its_objects(repo: Repo, tmp_path: Path, keeper: str) -> None:
    repo.write(NAME, state(3))
    repo.git("add", ".")
    needed = {blob.digest for blob in repo.manifest(NAME).needs()}
    if keeper == "stash":
        repo.git("stash", "--quiet")
    elif keeper == "note":
        repo.git("update-ref", "refs/theta/keep", repo.git("rev-parse", f":{NAME}"))
        repo.git("reset", "--quiet", "--hard")
    elif keeper == "nothing":
        repo.git("reset", "--quiet", "--hard")
    elif keeper == "other index":
        repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
        shutil.copy(NAME, tmp_path / "linked" / NAME)
        Repo(tmp_path / "linked").git("add", ".")
        repo.git("reset", "--quiet", "--hard")
    elif keeper != "index":
        repo.git("commit", "--quiet", "-m", "three")
        if keeper == "worktree":
            repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
        elif keeper == "tag":
            repo.git("tag", "kept")
        repo.git("reset", "--quiet", "--hard", "HEAD~1")
    if keeper not in ("nothing", "reflog"):
        forget(repo)
    age(repo)
    pruned()
    pruned()
    assert needed <= set(repo.store)
    assert is_whole()


def test_what_the_worktree_holds_may_be_added_any_moment(repo: Repo) -> None:
    """``git diff`` stored it, and the next ``git add`` is answered from memory."""
    before = repo.objects()
    repo.write(NAME, state(3))
    time.sleep(0.05)  # a file that has just changed is not remembered
    assert repo.git("diff", "--numstat") == f"4\t4\t{NAME}"
    new = repo.objects().keys() - before.keys()
    age(repo)
    assert prune(Repository(), Options(time.time())).removed == ()
    assert new <= repo.objects().keys()
    repo.git("checkout", "--quiet", NAME)
    assert pruned().removed == ()
    assert {blob.digest for blob in prune(Repository(), Options(time.time())).removed} == new
    assert is_whole()


def test_a_file_that_left_the_worktree_with_its_directory(repo: Repo) -> None:
    oids = set(repo.objects())
    repo.write("new/deep/model.safetensors", state(3))
    time.sleep(0.05)
    repo.git("add", "--intent-to-add", ".")
    repo.git("diff", "--stat")
    new = set(repo.objects()) - oids
    repo.git("reset", "--quiet")
    shutil.rmtree("new")
    age(repo)
    assert pruned().removed == ()
    os.utime(".", (0, 0))
    assert {blob.digest for blob in pruned().removed} == new


@pytest.mark.parametrize("text", [b"git-theta-btm manifest 2: what is to come\nblob %s\n", b"broken"])
def test_a_manifest_that_cannot_be_read_keeps_all_it_names(repo: Repo, text: bytes) -> None:
    oid = garbage(repo)
    if text == b"broken":
        text = repo.blob(NAME).replace(b"digest", b"broken") + b"object raw %s\n"
    repo.run("hash-object", "-w", "--stdin", stdin=text % oid.encode())
    assert pruned().removed == ()
    assert oid in repo.objects()


def test_a_manifest_that_is_replaced(repo: Repo) -> None:
    """``git replace`` hides an object, and is undone as easily."""
    old = repo.git("rev-parse", f"HEAD~1:{NAME}")
    other = repo.run("hash-object", "-w", "--stdin", stdin=b"something else").stdout.decode().strip()
    repo.git("replace", old, other)
    assert pruned().removed == ()
    repo.git("replace", "-d", old)
    assert is_whole()


def test_git_cannot_read_an_object(repo: Repo) -> None:
    oid = garbage(repo)
    blob = repo.git("rev-parse", f"HEAD:{NAME}")
    path = repo.path / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ThetaError):
        pruned()
    assert oid in repo.objects()


def test_git_looks_elsewhere(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path))
    with pytest.raises(ThetaError, match="GIT_OBJECT_DIRECTORY"):
        pruned()


def test_it_waits_for_who_stores_objects(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    oid = garbage(repo)
    monkeypatch.setattr(pruning, "_PATIENCE", 0.2)
    connection = sqlite3.connect(repo.theta / "catalogue.sqlite3")
    connection.execute("SELECT count(*) FROM manifest").fetchone()
    with pytest.raises(ThetaError, match="try later"):
        pruned()
    assert oid in repo.objects()
    connection.close()
    assert len(pruned().removed) == 1


@pytest.mark.parametrize("how", ["none", "broken"])
def test_a_catalogue_that_is_lost(repo: Repo, how: str) -> None:
    oid = garbage(repo)
    for path in repo.theta.glob("catalogue.*"):
        path.unlink()
    if how == "broken":
        (repo.theta / "catalogue.sqlite3").write_bytes(b"no database" * 1000)
    assert [blob.digest for blob in pruned().removed] == [oid]
    assert is_whole()


def test_what_killed_processes_left(repo: Repo) -> None:
    (repo.theta / "tmp").mkdir(exist_ok=True)
    stale, fresh = repo.theta / "tmp" / "1-stale", repo.theta / "tmp" / "2-fresh"
    for path in (stale, fresh):
        path.write_bytes(b"half an obj")
    os.utime(stale, (0, 0))
    pruned(dry_run=True)
    assert stale.exists()
    pruned()
    assert not stale.exists()
    assert fresh.exists()


def test_an_empty_repository(tmp_path: Path, repo: Repo) -> None:
    repo.git("init", "--quiet", str(tmp_path / "new"))
    assert prune(Repository(str(tmp_path / "new")), Options(time.time())) == Report((), 0, 0)

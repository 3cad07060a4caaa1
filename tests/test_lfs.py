from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Repo
from lfs_server import Server

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.manifest import Blob, Digest
from git_theta_btm.remotes.lfs import Lfs, adopt, media, pointer, write_pointers
from git_theta_btm.remotes.quarantine import quarantine
from git_theta_btm.store import DiskStore, put

Done = subprocess.CompletedProcess[bytes]
DATA = [bytes([index]) * (20_000 + index) for index in range(5)]
BLOBS = [Blob(Digest.of(data), len(data)) for data in DATA]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server").running() as running:
        yield running


@pytest.fixture
def filled(repo: Repo) -> Repo:
    """A repository with all objects."""
    for data in DATA:
        put(repo.store, data)
    return repo


def lfs(repo: Repo, remote: str) -> Lfs:
    return Lfs(Git(str(repo.path)), remote, repo.store)


def names(blobs: list[Blob]) -> set[str]:
    return {str(blob.digest) for blob in blobs}


def every_file(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file()}


# -- pointers --------------------------------------------------------------------------------------------------------


def test_a_pointer_is_what_the_specification_says() -> None:
    """git-lfs, docs/spec.md: its own example."""
    digest = Digest("4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393")
    assert pointer(Blob(digest, 12345)) == (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        b"size 12345\n"
    )


@pytest.mark.parametrize("count", [1, 300])
def test_a_tree_of_pointers_depends_on_the_objects_alone(repo: Repo, count: int) -> None:
    blobs = [Blob(Digest.of(b"%d" % index), index) for index in range(count)]
    git = Git(str(repo.path))
    tree = write_pointers(git, blobs)
    assert write_pointers(git, reversed(blobs)) == tree
    rows = [row.split() for row in repo.git("ls-tree", tree).split("\n")]
    assert [row[3] for row in rows] == sorted(blob.digest for blob in blobs)
    by_name = {str(blob.digest): blob for blob in blobs}
    assert repo.run("cat-file", "blob", rows[0][2]).stdout == pointer(by_name[rows[0][3]])


def test_a_quarantine_leaves_nothing(repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alternate = Repo(tmp_path / "other")
    subprocess.run(["git", "init", "--quiet", str(alternate.path)], check=True)
    oid = alternate.run("hash-object", "-w", "--stdin", stdin=b"elsewhere").stdout.decode().strip()
    monkeypatch.setenv("GIT_ALTERNATE_OBJECT_DIRECTORIES", str(alternate.path / ".git" / "objects"))
    before = every_file(repo.path)
    with quarantine(Git(str(repo.path))) as git:
        tree = write_pointers(git, BLOBS)
        assert git.text("cat-file", "-t", tree) == "tree"
        assert git.text("cat-file", "-t", "HEAD") == "commit"
        assert git.text("cat-file", "-p", oid) == "elsewhere"
    assert every_file(repo.path) == before
    assert repo.run("cat-file", "-e", tree, check=False).returncode


def test_a_quarantine_waits_for_no_disk_and_keeps_what_else_is_set(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COUNT", "1"), ("KEY_0", "user.name"), ("VALUE_0", "Somebody")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    with quarantine(Git(str(repo.path))) as git:
        assert git.configured("core.fsync") == "none"
        assert git.configured("user.name") == "Somebody"
    assert Git(str(repo.path)).configured("core.fsync") == ""


# -- to and fro ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "directory", "file url"])
def test_there_and_back(filled: Repo, server: Server, tmp_path: Path, kind: str) -> None:
    server.create("a b")
    directory = tmp_path / "server" / "a b.git"
    remote = {"http": server.create("plain"), "directory": str(directory), "file url": f"file://{directory}"}[kind]
    here = lfs(filled, remote)
    assert here.can_tell
    assert here.lacking(BLOBS) == names(BLOBS)
    here.push(blob.digest for blob in BLOBS[:3])
    assert here.lacking(BLOBS) == names(BLOBS[3:])
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "other")], check=True)
    other = Repo(tmp_path / "other")
    said = lfs(other, remote).fetch(BLOBS[1:4])
    assert other.objects().keys() == names(BLOBS[1:3])
    assert "failed to fetch" in said if kind == "http" else said == ""
    assert lfs(other, remote).fetch(BLOBS[:3]) == ""
    assert other.objects() == {str(blob.digest): blob.size for blob in BLOBS[:3]}
    assert not every_file(other.path / ".git" / "lfs")


def test_a_push_knows_when_nothing_is_left(filled: Repo, server: Server) -> None:
    here = lfs(filled, server.create("a"))
    server.refused = {str(BLOBS[1].digest)}  # HTTP 422, for which git-lfs ends with 0
    assert not here.push(blob.digest for blob in BLOBS)
    assert here.lacking(BLOBS) == server.refused
    server.refused = set()
    assert here.push(blob.digest for blob in BLOBS)


def test_to_ask_moves_no_object(filled: Repo, server: Server) -> None:
    here = lfs(filled, server.create("a"))
    blobs = [*BLOBS, *(Blob(Digest.of(b"%d" % index), 70_000) for index in range(200))]
    before = every_file(filled.path)
    assert here.lacking(blobs) == names(blobs)
    assert server.uploaded == server.downloaded == []
    assert sum(server.batches) == len(blobs) and len(server.batches) <= 4
    assert {path for path in every_file(filled.path) - before if "objects" in path.parts} == set()


def test_what_is_said_of_a_remote_is_no_proof(filled: Repo, server: Server) -> None:
    """git-lfs takes objects for present whose pointers lie in a commit that the remote has."""
    filled.git("remote", "add", "origin", server.create("a"))
    filled.write("plain", pointer(BLOBS[0]))
    filled.commit()
    filled.git("push", "--quiet", "--no-verify", "origin", "main")
    assert lfs(filled, "origin").lacking(BLOBS[:2]) == names(BLOBS[:2])


def test_other_bytes_are_not_kept(filled: Repo, server: Server, tmp_path: Path) -> None:
    """A directory is a remote that nobody checks."""
    server.create("a")
    directory = str(tmp_path / "server" / "a.git")
    lfs(filled, directory).push([BLOBS[0].digest])
    file = server.object("a", BLOBS[0].digest)
    file.unlink()
    file.write_bytes(b"x" * BLOBS[0].size)
    Path(filled.store.path(BLOBS[0].digest)).unlink()
    said = lfs(filled, directory).fetch(BLOBS[:1])
    assert said == f"{directory} has other bytes under the name of object {BLOBS[0].digest}"
    assert filled.store.size(BLOBS[0].digest) is None


class Counting(Git):
    """git, and what it was asked to do."""

    asked: list[str]

    def run(self, *arguments: str, stdin: bytes = b"", check: bool = True, progress: bool = False) -> Done:
        self.asked = [*getattr(self, "asked", []), " ".join(arguments)]
        return super().run(*arguments, stdin=stdin, check=check, progress=progress)


@pytest.mark.parametrize("elsewhere", ["", "lfs.url", "remote.mine.lfsurl", "url.insteadof", ".lfsconfig", "HEAD"])
def test_a_fetch_asks_where_objects_are_unless_it_is_plain(
    filled: Repo, server: Server, tmp_path: Path, elsewhere: str
) -> None:
    """Whatever may lead to a directory of this machine is found out from git-lfs itself."""
    directory = tmp_path / "server" / "there.git"
    server.create("there")
    lfs(filled, str(directory)).push(blob.digest for blob in BLOBS)
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "other")], check=True)
    other = Repo(tmp_path / "other")
    other.git("remote", "add", "mine", f"{server.url}/there.git")
    if elsewhere.startswith(("lfs.", "remote.")):
        other.git("config", elsewhere, f"file://{directory}")
    elif elsewhere == "url.insteadof":
        other.git("config", f"url.file://{directory}.insteadof", f"{server.url}/there.git")
    elif elsewhere:
        other.write(".lfsconfig", f"[lfs]\n\turl = file://{directory}\n".encode())
        if elsewhere == "HEAD":
            other.commit("settings")
            other.git("rm", "--quiet", "--cached", ".lfsconfig")
            (other.path / ".lfsconfig").unlink()
    git = Counting(str(other.path))
    assert Lfs(git, "mine", other.store).fetch(BLOBS[:2]) == ""
    assert other.objects().keys() == names(BLOBS[:2])
    assert ("lfs env" in git.asked) == bool(elsewhere)
    assert bool(server.downloaded) == (not elsewhere)


def test_what_came_wrong_is_removed_and_what_came_right_stays(
    filled: Repo, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git-lfs, if it did not look, or an agent of the user's that does not."""
    agent = tmp_path / "bin" / "git-lfs"
    agent.parent.mkdir()
    where = tmp_path / "other" / ".git" / "theta" / "objects"
    right, wrong = (where / blob.digest[:2] / blob.digest[2:4] / blob.digest for blob in BLOBS[:2])
    agent.write_text(
        f"#!/bin/sh\nmkdir -p {right.parent} {wrong.parent}\nhead -c {BLOBS[1].size} /dev/zero >{wrong}\nsleep 0.1\n"
        f"cp {filled.store.path(BLOBS[0].digest)} {right}\n"
    )
    agent.chmod(0o755)
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "other")], check=True)
    other = Repo(tmp_path / "other")
    monkeypatch.setenv("PATH", f"{agent.parent}:{os.environ['PATH']}")
    said = lfs(other, server.create("a")).fetch(BLOBS[:3])
    assert "other bytes" in said and BLOBS[1].digest in said
    assert other.objects().keys() == names(BLOBS[:1])


def test_a_server_that_is_not_there(filled: Repo, server: Server) -> None:
    filled.git("config", "lfs.transfer.maxretries", "1")
    url = server.create("a")
    server.stop()
    with pytest.raises(ThetaError, match="connection refused"):
        lfs(filled, url).lacking(BLOBS)
    assert "connection refused" in lfs(filled, url).fetch([Blob(Digest.of(b"x"), 1)])


def test_a_directory_that_is_not_there(filled: Repo) -> None:
    with pytest.raises(ThetaError, match="/nowhere"):
        lfs(filled, "/nowhere").lacking(BLOBS)


def test_an_agent_in_between_cannot_be_asked(filled: Repo, server: Server) -> None:
    filled.git("config", "lfs.standalonetransferagent", "mine")
    here = lfs(filled, server.create("a"))
    assert not here.can_tell
    assert here.lacking(BLOBS) == names(BLOBS)
    assert server.batches == []


# -- git-lfs's own store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [None, "elsewhere", "/absolute"])
def test_where_git_lfs_keeps_objects(repo: Repo, storage: str | None) -> None:
    git, common = Git(str(repo.path)), str(repo.path / ".git")
    if storage:
        repo.git("config", "lfs.storage", storage)
    told = next(line for line in repo.git("lfs", "env").split("\n") if line.startswith("LocalMediaDir="))
    if storage != "/absolute":  # which git-lfs would create
        assert media(git, common) == told.partition("=")[2]
    assert media(git, common) == os.path.join(common, storage or "lfs", "objects")


def theirs(root: Path, blob: Blob, data: bytes) -> Path:
    path = root / blob.digest[:2] / blob.digest[2:4] / blob.digest
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_objects_are_adopted_if_they_are_right(tmp_path: Path) -> None:
    store, root = DiskStore(str(tmp_path / "theta")), tmp_path / "lfs" / "objects"
    right, wrong = theirs(root, BLOBS[0], DATA[0]), theirs(root, BLOBS[1], DATA[0])
    short = Path(store.path(BLOBS[0].digest))
    short.parent.mkdir(parents=True)
    short.write_bytes(b"")
    for _ in range(2):
        assert adopt(BLOBS, str(root), store) == [BLOBS[1]]
        assert list(store) == [BLOBS[0].digest]
        assert os.path.samefile(right, store.path(BLOBS[0].digest))
        assert os.listdir(short.parent) == [BLOBS[0].digest]
    assert wrong.read_bytes() == DATA[0]


def test_objects_of_another_file_system_are_copied(tmp_path: Path, small_disk: Path) -> None:
    store = DiskStore(str(tmp_path / "theta"))
    theirs(small_disk, BLOBS[0], DATA[0])
    adopt(BLOBS, str(small_disk), store)
    assert Path(store.path(BLOBS[0].digest)).read_bytes() == DATA[0]

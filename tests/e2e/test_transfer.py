"""What was committed on one machine is there on another, whatever happened on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo
from lfs_server import Server

from git_theta_btm.git import Git
from git_theta_btm.manifest import Digest
from git_theta_btm.remotes.keeping import PREFIX
from git_theta_btm.repository import read_stub
from git_theta_btm.setup.install import install

NAME = "dir/my model.safetensors"
TENSORS = 4
SIZE = 10_000  # elements: 40 kB, too many for a pack


@pytest.fixture
def server(tmp_path: Path, home: Path) -> Iterator[Server]:
    """A server, and a user who has the filters and an identity."""
    install(Git(str(home)), "global")
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server").running() as running:
        yield running


def state(**changes: float) -> dict[str, Any]:
    """A model; ``h1=0.5`` adds to one of its tensors."""
    random = np.random.default_rng(0)
    model = {f"h{index}": random.standard_normal(SIZE, dtype="f4") for index in range(TENSORS)}
    return {name: values + np.float32(changes.get(name, 0)) for name, values in model.items()} | {"b": np.ones(3, "f4")}


def clone(url: str, path: Path, *options: str) -> Repo:
    subprocess.run(["git", "clone", "--quiet", *options, url, str(path)], check=True, capture_output=True)
    return Repo(path)


def same(*repos: Repo, path: str = NAME) -> bool:
    """Whether the file is there, is no stub, and is the same everywhere, with nothing to commit."""
    assert all(read_stub(str(repo.path / path)) is None for repo in repos)
    assert all(repo.status() == "" for repo in repos)
    return len({repo.sha(path) for repo in repos}) == 1


def needed(repo: Repo, revision: str = "HEAD") -> set[str]:
    return {str(blob.digest) for blob in repo.manifest(NAME, revision).needs()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test of this file leaves a copy of what ``shared`` made: a push takes a second."""
    return tmp_path_factory.mktemp("pristine")


@pytest.fixture
def shared(repo: Repo, server: Server, pristine: Path) -> Repo:
    """A repository whose first model has been pushed to ``origin``."""
    url, origin = server.create("origin"), server.root / "origin.git"
    if (pristine / "repo").exists():
        for copy, path in (("repo", repo.path), ("origin.git", origin)):
            shutil.rmtree(path)
            shutil.copytree(pristine / copy, path, symlinks=True)
        repo.git("remote", "set-url", "origin", url)
        return repo
    repo.git("remote", "add", "origin", url)
    repo.write(NAME, state())
    repo.commit("model")
    repo.git("push", "--quiet", "--set-upstream", "origin", "main")
    shutil.copytree(origin, pristine / "origin.git")
    shutil.copytree(repo.path, pristine / "repo", symlinks=True)
    return repo


# -- the way of every day --------------------------------------------------------------------------------------------


def test_a_clone_is_the_same_and_gives_back(shared: Repo, server: Server, tmp_path: Path) -> None:
    assert server.objects("origin") == needed(shared)
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    assert same(shared, other)
    assert sorted(server.downloaded) == sorted(needed(shared))
    other.git("checkout", "--quiet", "-b", "expert")
    other.write(NAME, state(h1=1))
    other.commit("expert")
    server.uploaded.clear()
    other.git("push", "--quiet", "origin", "expert")
    assert set(server.uploaded) == needed(other) - needed(shared)
    shared.git("pull", "--quiet", "origin", "expert")
    assert same(shared, other)


def test_a_history_that_began_without_the_extension(repo: Repo, server: Server, tmp_path: Path) -> None:
    repo.git("config", "filter.theta.clean", "cat")
    repo.write(NAME, state())
    repo.commit("before")
    repo.git("config", "filter.theta.clean", f"{shutil.which('git-theta-filter')} clean -- %f")
    repo.write(NAME, state(h0=1))
    repo.commit("after")
    repo.git("remote", "add", "origin", server.create("origin"))
    repo.git("push", "--quiet", "origin", "main")
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    assert same(repo, other)
    assert not repo.blob(NAME, "HEAD~").startswith(b"git-theta")
    assert other.run("cat-file", "--filters", f"HEAD~:{NAME}").stdout == repo.blob(NAME, "HEAD~")


def test_from_a_clone_to_a_second_remote_to_a_third_machine(shared: Repo, server: Server, tmp_path: Path) -> None:
    shared.write(NAME, state(h2=1))
    shared.commit("by a colleague")
    shared.git("push", "--quiet")
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    other.git("remote", "add", "second", server.create("second"))
    other.git("push", "--quiet", "second", "main")
    third = clone(f"{server.url}/second.git", tmp_path / "third")
    assert same(shared, other, third)
    third.git("checkout", "--quiet", "HEAD~")
    other.git("checkout", "--quiet", "HEAD~")
    assert same(other, third)


def test_branches_are_deleted_and_tags_and_urls_are_pushed_to(shared: Repo, server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/origin.git"
    shared.write(NAME, state(h1=2))
    shared.commit("tagged")
    shared.git("tag", "-a", "v1", "-m", "a version")
    shared.git("push", "--quiet", url, "v1", "main:legal")
    assert needed(shared) <= server.objects("origin")
    shared.git("push", "--quiet", "origin", ":legal")
    shared.git("push", "--quiet", "origin", "--delete", "v1")
    assert "refs/tags/v1" not in server.refs("origin")
    shared.git("push", "--quiet", url, "--tags")
    assert same(shared, clone(url, tmp_path / "other", "--branch", "v1"))


def test_rewritten_history_brings_what_it_needs(shared: Repo, server: Server, tmp_path: Path) -> None:
    shared.git("checkout", "--quiet", "-b", "a")
    shared.write(NAME, state(h0=1))
    shared.commit("a")
    shared.write(NAME, state(h0=2))
    shared.git("commit", "--quiet", "--all", "--amend", "--message", "amended")
    shared.git("checkout", "--quiet", "-b", "b", "main")
    for number in (3, 4):
        shared.write(NAME, state(h1=number))
        shared.commit(f"b {number}")
    shared.git("checkout", "--quiet", "-b", "squashed", "main")
    shared.git("merge", "--quiet", "--squash", "b")
    shared.git("commit", "--quiet", "--message", "squash")
    shared.write("notes.txt", b"notes")
    shared.commit("notes")
    shared.git("rebase", "--quiet", "main")
    shared.git("checkout", "--quiet", "-b", "merged", "a")
    shared.git("merge", "--quiet", "-s", "ours", "-m", "merge", "b")
    for branch in ("squashed", "merged"):
        shared.git("push", "--quiet", "origin", branch)
        other = clone(f"{server.url}/origin.git", tmp_path / branch, "--branch", branch)
        shared.git("checkout", "--quiet", branch)
        assert same(shared, other)
    assert needed(shared, "b") <= server.objects("origin")  # the merge's second parent


def test_linked_worktrees_and_submodules(shared: Repo, server: Server, tmp_path: Path) -> None:
    shared.git("worktree", "add", "--quiet", "-b", "linked", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    linked.write(NAME, state(h3=1))
    linked.commit("linked")
    linked.git("push", "--quiet", "origin", "linked")
    assert same(linked, clone(f"{server.url}/origin.git", tmp_path / "other", "--branch", "linked"))

    outer = tmp_path / "outer"
    subprocess.run(["git", "init", "--quiet", str(outer)], check=True)
    Repo(outer).git("submodule", "--quiet", "add", f"{server.url}/origin.git", "models")
    inner = Repo(outer / "models")
    assert same(shared, inner)
    inner.write(NAME, state(h3=2))
    inner.commit("from a submodule")
    inner.git("push", "--quiet", "origin", "HEAD:inner")
    assert same(inner, clone(f"{server.url}/origin.git", tmp_path / "third", "--branch", "inner"))


@pytest.mark.parametrize("spelling", ["plain path", "file url"])
def test_a_remote_on_this_machine(repo: Repo, server: Server, tmp_path: Path, spelling: str) -> None:
    server.create("a remote")
    directory = tmp_path / "server" / "a remote.git"
    url = str(directory) if spelling == "plain path" else f"file://{directory}"
    repo.git("remote", "add", "origin", url)
    repo.write(NAME, state())
    repo.commit()
    repo.git("push", "--quiet", "origin", "main")
    assert server.objects("a remote") == needed(repo)
    assert same(repo, clone(url, tmp_path / "other"))


def test_a_clone_of_a_working_repository(repo: Repo, home: Path, tmp_path: Path) -> None:
    install(Git(str(home)), "global")
    repo.write(NAME, state())
    repo.commit()
    other = clone(str(repo.path), tmp_path / "other")
    assert same(repo, other)
    other.git("checkout", "--quiet", "-b", "expert")
    other.write(NAME, state(h1=1))
    other.commit()
    other.git("push", "--quiet", "origin", "expert")
    repo.git("checkout", "--quiet", "expert")
    assert same(repo, other)


# -- other hooks -----------------------------------------------------------------------------------------------------


def test_hooks_elsewhere_and_of_others_still_run(shared: Repo, server: Server, tmp_path: Path) -> None:
    hooks = tmp_path / "all my hooks"
    hooks.mkdir()
    (hooks / "pre-push").write_text(f'#!/bin/sh\ncat >"{tmp_path}/seen"\necho "$@" >>"{tmp_path}/seen"\n')
    (hooks / "pre-push").chmod(0o755)
    shared.git("config", "core.hooksPath", str(hooks))
    shared.git("theta", "install", "--local")
    shared.write(NAME, state(h1=1))
    commit = shared.commit()
    before = shared.git("rev-parse", "origin/main")
    shared.git("push", "--quiet", "origin", "main")
    url = f"{server.url}/origin.git"
    seen = (tmp_path / "seen").read_text()
    assert seen == f"refs/heads/main {commit} refs/heads/main {before}\norigin {url}\n"
    assert needed(shared) <= server.objects("origin")


@pytest.mark.parametrize("first", ["theta", "lfs"])
def test_plain_lfs_files_are_pushed_as_well(repo: Repo, server: Server, tmp_path: Path, first: str) -> None:
    if first == "lfs":
        (repo.path / ".git" / "hooks" / "pre-push").unlink()
    repo.run("lfs", "install", check=False)  # with a hook that it does not know it configures all else, and ends with 2
    if first == "lfs":
        repo.git("theta", "install", "--local")
    repo.git("lfs", "track", "*.png")
    repo.write("a picture.png", b"pixels" * 1000)
    repo.write(NAME, state())
    repo.commit()
    repo.git("remote", "add", "origin", server.create("origin"))
    repo.git("push", "--quiet", "origin", "main")
    assert len(server.objects("origin")) == len(needed(repo)) + 1
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    assert same(repo, other)
    assert same(repo, other, path="a picture.png")


# -- backups, and servers and tools that clean up --------------------------------------------------------------------


def test_a_backup_by_git_lfs_alone_is_complete(shared: Repo, server: Server, tmp_path: Path) -> None:
    versions = {"main": shared.sha(NAME)}
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    for number in range(3):
        shared.git("checkout", "--quiet", "-b", f"expert-{number}", "main")
        versions[f"expert-{number}"] = shared.write(NAME, state(**{f"h{number}": 1}))
        shared.commit()
    shared.git("push", "--quiet", "origin", "--all")
    other.git("fetch", "--quiet")
    other.git("lfs", "fetch", "--all")
    server.stop()
    for branch, sha in versions.items():
        other.git("checkout", "--quiet", branch)
        assert other.sha(NAME) == sha
        assert other.status() == ""


def test_a_server_that_drops_what_no_pointer_names(shared: Repo, server: Server, tmp_path: Path) -> None:
    for number in range(2):
        shared.write(NAME, state(h0=number + 1))
        shared.commit()
        shared.git("push", "--quiet")
        assert server.collect_garbage("origin") == set()
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    assert same(shared, other)
    other.git("checkout", "--quiet", "HEAD~2")
    assert other.sha(NAME) != shared.sha(NAME)


def test_tools_that_clean_up_lose_nothing(shared: Repo, server: Server, tmp_path: Path) -> None:
    def clean_up(repo: Repo) -> None:
        repo.git("lfs", "prune", "--force", "--recent")
        repo.git("gc", "--quiet", "--prune=now")

    clean_up(shared)
    shared.write(NAME, state(h0=1))
    shared.git("add", ".")
    clean_up(shared)
    shared.commit()
    clean_up(shared)
    shared.git("push", "--quiet")
    clean_up(shared)
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    other.git("theta", "fetch", "origin", "HEAD~")
    clean_up(other)
    server.stop()
    for repo in (shared, other):
        repo.git("checkout", "--quiet", "HEAD~")
    assert same(shared, other)


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_an_interrupted_push_resumes(shared: Repo, server: Server, tmp_path: Path) -> None:
    shared.git("config", "lfs.concurrenttransfers", "1")
    shared.git("config", "lfs.transfer.maxretries", "1")
    shared.write(NAME, state(h0=1, h1=1, h2=1))
    shared.commit()
    server.uploaded.clear()
    server.uploads_left = 2
    assert shared.run("push", "origin", "main", check=False).returncode
    assert shared.git("ls-remote", "origin", "main").split()[0] == shared.git("rev-parse", "HEAD~")
    server.uploads_left = 1 << 60
    shared.git("push", "--quiet", "origin", "main")
    assert len(server.uploaded) == len(set(server.uploaded)) >= 3
    assert same(shared, clone(f"{server.url}/origin.git", tmp_path / "other"))


def test_an_interrupted_fetch_resumes(shared: Repo, server: Server, tmp_path: Path) -> None:
    lost = max(needed(shared))
    hidden = server.object("origin", lost).rename(tmp_path / "hidden")
    other = clone(f"{server.url}/origin.git", tmp_path / "other")
    assert read_stub(str(other.path / NAME))
    done = other.run("theta", "pull", check=False)
    assert done.returncode == 1
    assert lost in done.stderr.decode()
    hidden.rename(server.object("origin", lost))
    server.downloaded.clear()
    other.git("theta", "pull")
    assert server.downloaded == [lost]
    assert same(shared, other)


def test_an_object_that_is_nowhere_stops_the_push(shared: Repo, server: Server) -> None:
    gone = shared.manifest(NAME).entries[1].digest
    shared.git("remote", "add", "second", server.create("second"))
    shared.git("lfs", "prune", "--force", "--recent")
    Path(shared.store.path(gone)).unlink()
    server.object("origin", gone).unlink()
    done = shared.run("push", "second", "main", check=False)
    assert done.returncode
    assert f"{NAME}: parameter h0: object {gone} is neither here nor on second nor on origin" in done.stderr.decode()
    assert server.refs("second") == []
    assert gone in shared.run("theta", "push", "--all", check=False).stderr.decode()
    shared.git("commit", "--quiet", "--allow-empty", "--message", "nothing new")
    shared.git("push", "--quiet", "origin", "main")  # needs nothing that origin's own commits do not need already


def test_an_object_that_another_remote_has_is_brought_along(shared: Repo, server: Server) -> None:
    gone = shared.manifest(NAME).entries[1].digest
    shared.git("lfs", "prune", "--force", "--recent")
    Path(shared.store.path(gone)).unlink()
    shared.git("push", "--quiet", server.create("second"), "main")
    assert server.objects("second") == needed(shared)


def test_what_is_on_the_remote_alone_need_not_be_here(shared: Repo, server: Server, tmp_path: Path) -> None:
    other = clone(f"{server.url}/origin.git", tmp_path / "other", "--no-checkout")
    other.run("checkout", env={"GIT_THETA_SKIP_SMUDGE": "1"})
    assert read_stub(str(other.path / NAME))
    other.git("mv", NAME, "moved.safetensors")
    other.commit("moved")
    server.downloaded.clear()
    other.git("push", "--quiet", "origin", "HEAD:moved")
    assert server.downloaded == []
    assert other.objects() == {}


def test_a_remote_that_refuses_an_object(shared: Repo, server: Server) -> None:
    shared.git("config", "lfs.transfer.maxretries", "1")
    shared.write(NAME, state(h2=7))
    shared.commit()
    entry = shared.manifest(NAME).entries[3]
    server.refused = needed(shared)
    done = shared.run("push", "origin", "main", check=False)
    assert done.returncode
    assert entry.name == "h2"
    assert f"{NAME}: parameter h2: object " in done.stderr.decode()
    assert shared.git("ls-remote", "origin", "main").split()[0] == shared.git("rev-parse", "HEAD~")


def test_a_corrupt_object_is_not_pushed(shared: Repo, server: Server) -> None:
    shared.write(NAME, state(h2=7))
    shared.commit()
    (new,) = needed(shared) - server.objects("origin")
    file = Path(shared.store.path(Digest(new)))
    file.chmod(0o644)
    file.write_bytes(b"x" * file.stat().st_size)
    done = shared.run("push", "origin", "main", check=False)
    assert done.returncode
    assert f"{NAME}: parameter h2: object {new} is corrupt" in done.stderr.decode()
    assert new not in server.objects("origin")


def test_without_git_lfs_only_transfer_fails(shared: Repo, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "git-lfs"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    path = {"PATH": f"{broken.parent}:{os.environ['PATH']}"}
    shared.write(NAME, state(h0=9))
    shared.run("commit", "--quiet", "-am", "without", env=path)
    shared.run("checkout", "--quiet", "HEAD~", env=path)
    done = shared.run("push", "origin", "main", check=False, env=path)
    assert done.returncode
    assert "git-lfs, which exchanges models with remotes, is not installed" in done.stderr.decode()


# -- fetching less, or nothing ---------------------------------------------------------------------------------------


def test_one_layer_travels_alone(shared: Repo, server: Server, tmp_path: Path) -> None:
    other = clone(f"{server.url}/origin.git", tmp_path / "other", "--no-checkout")
    other.run("checkout", env={"GIT_THETA_SKIP_SMUDGE": "1"})
    layer = next(entry for entry in shared.manifest(NAME).entries if entry.name == "h2")
    server.downloaded.clear()
    other.git("theta", "fetch", "--parameters", "h2")
    stored = [item.oid for item in shared.manifest(NAME).objects if item.rest[:1] == (layer.digest,)]
    assert server.downloaded == (stored or [layer.digest])
    assert other.git("theta", "show", f"{NAME}#h2")  # without the pack of what is small
    assert read_stub(str(other.path / NAME))
    other.git("theta", "pull", "-I", "dir")
    assert same(shared, other)


@pytest.mark.parametrize("way", ["theta.fetch", "environment"])
def test_a_checkout_that_is_to_fetch_nothing(shared: Repo, server: Server, tmp_path: Path, way: str) -> None:
    other = clone(f"{server.url}/origin.git", tmp_path / "other", "--no-checkout")
    other.git("config", "theta.fetch", "false" if way == "theta.fetch" else "true")
    server.downloaded.clear()
    other.run("checkout", env={"GIT_THETA_SKIP_SMUDGE": "1"} if way == "environment" else {})
    assert server.downloaded == []
    assert read_stub(str(other.path / NAME))


def test_another_remote_helps_out(shared: Repo, server: Server, tmp_path: Path) -> None:
    server.create("empty")
    other = clone(f"{server.url}/origin.git", tmp_path / "other", "--no-checkout")
    other.git("remote", "rename", "origin", "backup")
    other.git("remote", "add", "origin", f"{server.url}/empty.git")
    other.git("checkout", "--quiet")
    assert same(shared, other)


# -- keep refs -------------------------------------------------------------------------------------------------------


def test_many_keep_refs_become_one(shared: Repo, server: Server) -> None:
    oid = shared.git("hash-object", "-w", "-t", "blob", "/dev/null")
    names = []
    for number in range(50):
        tree = shared.run("mktree", stdin=f"100644 blob {oid}\t{number}\n".encode()).stdout.decode().strip()
        names.append(f"{tree}:{PREFIX}{tree}")
    shared.git("push", "--quiet", "--no-verify", "origin", *names)
    shared.write(NAME, state(h0=3))
    shared.commit()
    shared.git("push", "--quiet", "origin", "main")
    assert len([ref for ref in server.refs("origin") if ref.startswith(PREFIX)]) == 1
    assert server.collect_garbage("origin") == set()


def test_a_remote_that_takes_no_such_refs_warns_once(shared: Repo, server: Server) -> None:
    guard = server.root / "origin.git" / "hooks" / "update"
    guard.write_text("#!/bin/sh\ncase $1 in refs/theta/*) echo not here >&2; exit 1;; esac\n")
    guard.chmod(0o755)
    before = server.refs("origin")
    said = []
    for number in range(2):
        shared.write(NAME, state(h0=number + 5))
        shared.commit()
        said.append(shared.run("push", "origin", "main").stderr.decode())
    assert "takes no refs below refs/theta/keep/" in said[0]
    assert "takes no refs" not in said[1]
    assert server.refs("origin") == before
    assert needed(shared) <= server.objects("origin")


def test_keep_refs_can_be_switched_off(shared: Repo, server: Server) -> None:
    before = server.refs("origin")
    shared.git("config", "theta.keepref", "false")
    shared.write(NAME, state(h0=3))
    shared.commit()
    shared.git("push", "--quiet", "origin", "main")
    assert server.refs("origin") == before

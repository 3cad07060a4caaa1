"""Objects go where the commits go: to each URL that git pushes to, and not to the one that it fetches from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo
from lfs_server import Server

from git_theta_btm.git import Git
from git_theta_btm.remotes.checking import check
from git_theta_btm.remotes.endpoints import endpoint, push_urls
from git_theta_btm.remotes.transfer import opened
from git_theta_btm.repository import Repository, read_stub
from git_theta_btm.setup.install import install

NAME = "model.safetensors"


@pytest.fixture
def server(tmp_path: Path, home: Path) -> Iterator[Server]:
    install(Git(str(home)), "global")
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server").running() as running:
        for name in ("fetched", "one", "two"):
            running.create(name)
        yield running


@pytest.fixture
def model(repo: Repo, server: Server) -> Repo:
    repo.write(NAME, {f"h{index}": np.full(9_000, index, "f4") for index in range(2)} | {"b": np.ones(3, "f4")})
    repo.commit()
    return repo


def place(server: Server, name: str, how: str) -> str:
    directory = server.root / f"{name}.git"
    return {"http": f"{server.url}/{name}.git", "file": f"file://{directory}", "path": str(directory)}[how]


def remote(repo: Repo, server: Server, how: str, *pushed: str) -> None:
    """A remote that is fetched from at one place, and pushed to at others."""
    repo.git("remote", "add", "origin", place(server, "fetched", how))
    for name in pushed:
        repo.git("remote", "set-url", "--add", "--push", "origin", place(server, name, how))


def needed(repo: Repo) -> set[str]:
    return {str(blob.digest) for blob in repo.manifest(NAME).needs()}


@pytest.mark.parametrize("how", ["http", "path"])
def test_every_push_url_gets_the_objects(model: Repo, server: Server, tmp_path: Path, how: str) -> None:
    remote(model, server, how, "one", "two")
    model.git("push", "--quiet", "origin", "main")
    assert server.objects("one") == server.objects("two") == needed(model)
    assert server.objects("fetched") == set() and server.refs("fetched") == []
    assert all(any(ref.startswith("refs/theta/keep/") for ref in server.refs(name)) for name in ("one", "two"))
    subprocess.run(["git", "clone", "--quiet", place(server, "two", how), str(tmp_path / "clone")], check=True)
    clone = Repo(tmp_path / "clone")
    assert clone.sha(NAME) == model.sha(NAME) and read_stub(str(clone.path / NAME)) is None


def test_the_place_to_fetch_from_need_not_be_there(model: Repo, server: Server) -> None:
    remote(model, server, "http", "one")
    model.git("remote", "set-url", "origin", "http://127.0.0.1:9/gone.git")
    model.git("push", "--quiet", "origin", "main")
    assert server.objects("one") == needed(model)


def test_the_commands_know_every_push_url(model: Repo, server: Server) -> None:
    remote(model, server, "file", "one", "two")
    model.git("push", "--quiet", "--no-verify", "origin", "main")
    with opened(Repository(str(model.path))) as port:
        assert {str(need.blob.digest) for need in check(port, "origin").missing} == needed(model)
    listed = model.git("theta", "push", "--dry-run", "--all", "origin").splitlines()
    assert {line.split()[0] for line in listed} == needed(model)
    said = model.run("theta", "push", "--all", "origin").stderr.decode()
    assert said.startswith(f"{len(needed(model))} objects pushed to origin, ")
    assert server.objects("one") == server.objects("two") == needed(model)
    server.object("two", min(needed(model))).unlink()
    with opened(Repository(str(model.path))) as port:
        assert [str(need.blob.digest) for need in check(port, "origin").missing] == [min(needed(model))]


@pytest.mark.parametrize(("key", "given"), [("insteadOf", "a remote"), ("pushInsteadOf", "its URL")])
def test_a_url_is_rewritten_once(model: Repo, server: Server, key: str, given: str) -> None:
    """What git tells the hook begins with the very prefix that is rewritten."""
    there = server.root / "one.git"
    there.rename(server.root / "my-one.git")
    model.git("config", f"url.file://{server.root}/my-.{key}", f"file://{server.root}/")
    model.git("remote", "add", "origin", f"file://{there}")
    target = "origin" if given == "a remote" else f"file://{there}"
    model.git("push", "--quiet", target, "main")
    assert server.objects("my-one") == needed(model)
    assert [ref for ref in server.refs("my-one") if ref.startswith("refs/theta/keep/")]
    assert push_urls(Git(str(model.path)), target) == [f"file://{server.root}/my-one.git"]
    assert f"0 objects pushed to {target}" in model.run("theta", "push", target).stderr.decode()


def test_what_only_the_place_to_fetch_from_has_is_brought_along(model: Repo, server: Server) -> None:
    remote(model, server, "file")
    model.git("push", "--quiet", "origin", "main")
    model.git("remote", "set-url", "--push", "origin", place(server, "one", "file"))
    gone = Path(model.store.path(next(model.manifest(NAME).needs()).digest))
    gone.unlink()
    model.git("push", "--quiet", "origin", "main")
    assert server.objects("one") == needed(model) and gone.exists()


def test_settings_of_git_lfs_come_first(model: Repo, server: Server) -> None:
    remote(model, server, "http", "one")
    model.git("config", "remote.origin.lfspushurl", f"{place(server, 'two', 'http')}/info/lfs")
    model.git("push", "--quiet", "origin", "main")
    assert server.objects("two") == needed(model)
    assert server.objects("one") == server.objects("fetched") == set()


def test_the_order_of_settings_is_that_of_git_lfs(repo: Repo) -> None:
    """git-lfs-config(5). Each is set beside those that come after it."""
    git, url = Git(str(repo.path)), "http://pushed.example/a.git"
    repo.git("remote", "add", "origin", "http://fetched.example/a.git")
    there, here = f"{url}/info/lfs", "http://fetched.example/a.git/info/lfs"
    for key in ("remote.origin.lfsurl", "remote.origin.lfspushurl", "lfs.url", "lfs.pushurl"):
        assert (endpoint(git, "origin", url), endpoint(git, "origin")) == (there, here)
        there = f"http://{key}.example/"
        here = here if "push" in key else there
        repo.git("config", key, there)
    assert (endpoint(git, "origin", url), endpoint(git, "origin")) == (there, here)


@pytest.mark.parametrize("where", ["worktree", "index", "HEAD"])
def test_settings_that_the_project_brings_along(repo: Repo, where: str) -> None:
    repo.write(".lfsconfig", b"[lfs]\n\tpushurl = http://all.example/\n")
    if where != "worktree":
        repo.git("add", ".lfsconfig")
        (repo.path / ".lfsconfig").unlink()
    if where == "HEAD":
        repo.git("commit", "--quiet", "-m", "settings")
        repo.git("rm", "--quiet", "--cached", ".lfsconfig")
    repo.git("remote", "add", "origin", "http://one.example/a.git")
    git = Git(str(repo.path))
    assert endpoint(git, "origin", "http://two.example/a.git") == "http://all.example/"
    assert endpoint(git, "origin") == "http://one.example/a.git/info/lfs"
    repo.git("config", "lfs.pushurl", "http://mine.example/")
    assert endpoint(git, "origin", "http://two.example/a.git") == "http://mine.example/"


def test_a_directory_that_is_no_repository_gets_nothing(model: Repo, server: Server) -> None:
    (server.root / "plain").mkdir()
    model.git("remote", "add", "origin", str(server.root / "one.git"))
    model.git("config", "remote.origin.lfsurl", f"file://{server.root}/plain")
    done = model.run("push", "origin", "main", check=False)
    assert done.returncode and f"there is no repository at {server.root}/plain" in done.stderr.decode()
    made = [*(server.root / "plain").rglob("*"), *(model.path / "lfs").rglob("*")]
    assert [path for path in made if path.is_file()] == []

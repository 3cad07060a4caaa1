"""``git theta push``, ``fetch`` and ``pull`` as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo
from lfs_server import Server

from git_theta_btm.repository import read_stub

NAME = "model.safetensors"
STATE = {f"h{index}": np.random.default_rng(index).standard_normal(9_000, dtype="f4") for index in range(3)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server").running() as running:
        yield running


@pytest.fixture
def model(repo: Repo, server: Server) -> Repo:
    """A model, and a remote that has nothing yet."""
    repo.write(NAME, STATE)
    repo.commit()
    repo.git("remote", "add", "origin", server.create("origin"))
    return repo


def theta(repo: Repo, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["git", "theta", *arguments], cwd=repo.path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_objects_go_without_commits(model: Repo, server: Server) -> None:
    names = {str(blob.digest) for blob in model.manifest(NAME).needs()}
    listed = json.loads(theta(model, "push", "--dry-run", "--json").stdout)["objects"]
    assert {item["object"] for item in listed} == names
    assert all(name in theta(model, "push", "--dry-run").stdout for name in names)
    assert server.objects("origin") == set()
    assert theta(model, "push").stderr.startswith(f"{len(names)} objects pushed to origin, ")
    assert server.objects("origin") == names
    assert [ref for ref in server.refs("origin") if ref.startswith("refs/heads")] == []
    report = json.loads(theta(model, "push", "origin", "main", "--json").stdout)
    assert report == {"version": 1, "remote": "origin", "asked": len(names), "objects": 0, "bytes": 0}


def test_everything_repairs_a_remote_that_was_pushed_to_without_the_hook(model: Repo, server: Server) -> None:
    model.git("push", "--quiet", "--no-verify", "origin", "main")
    theta(model, "push")
    assert server.objects("origin") == set()
    theta(model, "push", "--all")
    assert server.objects("origin") == {str(blob.digest) for blob in model.manifest(NAME).needs()}


@pytest.mark.parametrize("command", ["push", "fetch"])
def test_without_a_remote_it_says_so(repo: Repo, command: str) -> None:
    repo.write(NAME, STATE)
    repo.commit()
    gone = Path(repo.store.path(next(repo.manifest(NAME).needs()).digest))
    gone.unlink()
    done = theta(repo, command, code=128 if command == "push" else 1)
    assert "there is no remote" in done.stderr


def test_a_revision_that_is_none(model: Repo) -> None:
    assert "there is no revision 'nonsense'" in theta(model, "push", "origin", "nonsense", code=128).stderr


@pytest.mark.parametrize("command", ["push", "fetch"])
def test_a_word_that_is_no_remote(model: Repo, command: str, tmp_path: Path) -> None:
    model.git("branch", "legal")
    model.git("update-ref", "refs/remotes/origin/medical", "main")
    for word, advice in (
        ("orgin", "'git remote' lists"),
        ("legal", f"git theta {command} origin legal"),
        ("medical", f"git theta {command} origin origin/medical"),
        (f"HEAD:{NAME}", f"git theta {command} origin HEAD:{NAME}"),
    ):
        said = theta(model, command, word, code=129).stderr
        assert f"{word!r} is no remote" in said and advice in said
    model.git("config", "url.../short.insteadOf", "brief")
    model.git("init", "--quiet", "--bare", str(tmp_path / "short"))
    for word in ("origin", "../short", "brief"):
        theta(model, command, word)


def test_a_path_is_one_from_where_the_user_is(model: Repo, tmp_path: Path) -> None:
    model.git("init", "--quiet", "--bare", str(tmp_path / "other.git"))
    model.write("sub/notes.txt", b"")
    done = model.run("theta", "push", "../../other.git", cwd="sub")
    assert b" objects pushed to " in done.stderr
    digest = next(model.manifest(NAME).needs()).digest
    os.unlink(model.store.path(digest))
    model.run("theta", "fetch", "../../other.git", cwd="sub")
    assert os.path.isfile(model.store.path(digest))


def test_fetching_parts_and_the_rest(model: Repo, server: Server, tmp_path: Path) -> None:
    model.git("push", "--quiet", "origin", "main")
    model.git("config", "--global", "filter.theta.smudge", "cat")
    url = f"{server.url}/origin.git"
    subprocess.run(["git", "clone", "--quiet", url, str(tmp_path / "other")], check=True)
    other = Repo(tmp_path / "other")
    other.git("theta", "install", "--local")
    assert theta(other, "fetch", "--parameters", "h1").stderr.startswith("1 object fetched of 1, ")
    assert theta(other, "pull", "--parameters", "h2").stderr.startswith("1 object fetched of 1, ")
    assert read_stub(str(other.path / NAME))
    assert "no parameter matches x" in theta(other, "fetch", "--parameters", "x", code=128).stderr
    assert "goes with no" in theta(other, "fetch", "--all", "-I", "*.pt", code=128).stderr
    theta(other, "fetch", "--all")
    server.stop()
    assert "1 file restored" in theta(other, "pull", "-I", NAME).stderr
    assert other.sha(NAME) == model.sha(NAME)


def test_a_fetch_that_gets_nothing_says_why(model: Repo, server: Server) -> None:
    model.git("config", "lfs.transfer.maxretries", "1")
    gone = next(model.manifest(NAME).needs()).digest
    Path(model.store.path(gone)).unlink()
    done = theta(model, "fetch", code=1)
    assert f"1 object not found on origin, such as {gone}" in done.stderr
    server.stop()
    assert "connection refused" in theta(model, "fetch", code=1).stderr

"""A remote is asked what it has, over HTTP and in a directory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo
from lfs_server import Server, _Handler

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.remotes.checking import Report, check
from git_theta_btm.remotes.transfer import opened
from git_theta_btm.repository import Repository
from git_theta_btm.setup.install import install

NAME = "dir/my model.safetensors"


def state(**changes: float) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    model = {f"h{index}": random.standard_normal(10_000, dtype="f4") for index in range(3)}
    return {name: values + np.float32(changes.get(name, 0)) for name, values in model.items()}


class _Strict(_Handler):
    """Compares sizes, as Gitea does."""

    def _row(self, name: str, operation: str, item: dict[str, object]) -> dict[str, object]:
        file = self.site.object(name, str(item["oid"]))
        if file.exists() and file.stat().st_size != item["size"]:
            return {**item, "error": {"code": 422, "message": f"not {item['size']} bytes"}}
        return super()._row(name, operation, item)


@pytest.fixture
def server(tmp_path: Path, home: Path) -> Iterator[Server]:
    install(Git(str(home)), "global")
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server._http.RequestHandlerClass = type("Strict", (_Strict,), {"site": server})
    with server.running():
        yield server


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test of this file leaves a copy of what ``shared`` made: a push takes a second."""
    return tmp_path_factory.mktemp("pristine")


both = pytest.mark.parametrize("shared", ["http", "file"], indirect=True)


@pytest.fixture
def shared(request: pytest.FixtureRequest, repo: Repo, server: Server, pristine: Path) -> Repo:
    """A repository with two versions of a model, which have been pushed to a directory, or over HTTP."""
    how = getattr(request, "param", "file")
    url, origin, kept = server.create("origin"), server.root / "origin.git", pristine / how
    url = f"file://{origin}" if how == "file" else url
    if kept.exists():
        for copy, path in ((kept / "repo", repo.path), (kept / "origin.git", origin)):
            shutil.rmtree(path)
            shutil.copytree(copy, path, symlinks=True)
        repo.git("remote", "set-url", "origin", url)
        return repo
    repo.git("remote", "add", "origin", url)
    for step in range(2):
        repo.write(NAME, state(h1=step))
        repo.commit()
    repo.git("push", "--quiet", "--set-upstream", "origin", "main")
    shutil.copytree(origin, kept / "origin.git")
    shutil.copytree(repo.path, kept / "repo", symlinks=True)
    return repo


def asked(repo: Repo, name: str = "", *revisions: str) -> Report:
    with opened(Repository(str(repo.path))) as port:
        return check(port, name, revisions)


def told(repo: Repo, *arguments: str) -> tuple[int, list[str], str]:
    done = repo.run("theta", "fsck", *arguments, check=False)
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


def owner(repo: Repo, oid: str, revision: str = "HEAD") -> str:
    return next(entry.name for entry in repo.manifest(NAME, revision).entries if entry.digest == oid)


@both
def test_all_is_well(shared: Repo, server: Server) -> None:
    report = asked(shared)
    needed = {blob.digest for rev in ("HEAD", "HEAD~") for blob in shared.manifest(NAME, rev).needs()}
    assert report == Report("origin", len(needed), ())
    assert server.downloaded == []
    assert told(shared, "--remote")[:2] == (0, [])


@both
@pytest.mark.parametrize("how", ["missing", "short"])
def test_each_object_is_one_line(shared: Repo, server: Server, how: str) -> None:
    lost = [
        (next(entry.digest for entry in shared.manifest(NAME, rev).entries if entry.name == name), name)
        for rev, name in (("HEAD", "h0"), ("HEAD~", "h1"))
    ]
    for oid, _ in lost:
        file = server.object("origin", oid)
        data = file.read_bytes()
        file.unlink()  # a directory shares it with the repository by a hard link
        if how == "short":
            file.write_bytes(data[:-1])
    code, lines, words = told(shared, "--remote=origin")
    assert code == 1
    assert lines == [f"{NAME}: {name}: {oid}: not on origin" for oid, name in lost]
    assert "2 problems" in words and "git theta push --all origin" in words
    assert told(shared, "--remote=origin", "HEAD~..HEAD")[1] == [f"{NAME}: h0: {lost[0][0]}: not on origin"]
    code, lines, _ = told(shared, "--remote", "--json")
    assert code == 1 and f'"object": "{lost[1][0]}"' in "\n".join(lines)
    assert told(shared)[0] == 0  # nothing is wrong here


@both
def test_a_push_of_everything_is_the_remedy(shared: Repo, server: Server) -> None:
    for oid in list(server.objects("origin")):
        server.object("origin", oid).unlink()
    assert len(asked(shared).missing) == asked(shared).objects > 0
    shared.git("theta", "push", "--all", "origin")
    assert asked(shared).missing == ()


def test_what_has_not_been_pushed_is_not_missing(shared: Repo) -> None:
    shared.write(NAME, state(h2=1))
    shared.commit()
    assert asked(shared).missing == ()
    report = asked(shared, "origin", "HEAD")
    assert [need.owner for need in report.missing] == ["parameter h2"]


def test_what_the_remote_has_and_we_have_not(shared: Repo, server: Server) -> None:
    bare = server.root / "origin.git"
    other = subprocess.run(
        ["git", "-C", str(bare), "commit-tree", "-m", "by a colleague", "-p", "main", "main^{tree}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    subprocess.run(["git", "-C", str(bare), "update-ref", "refs/heads/other", other], check=True)
    report = asked(shared)
    assert (report.missing, report.unknown) == ((), ("refs/heads/other",))
    code, _, words = told(shared, "--remote")
    assert code == 0 and "git fetch" in words


def test_a_remote_that_nobody_has_pushed_to(shared: Repo, server: Server) -> None:
    server.create("new")
    shared.git("remote", "add", "new", f"{server.url}/new.git")
    assert asked(shared, "new") == Report("new", 0, ())
    assert len(asked(shared, "new", "HEAD").missing) == asked(shared, "origin", "HEAD").objects > 0


def test_a_broken_manifest_is_a_problem(shared: Repo) -> None:
    shared.write("notes.txt", shared.blob(NAME)[:-5])
    shared.commit()
    code, lines, _ = told(shared, "--remote=origin", "HEAD")
    assert code == 1 and len(lines) == 1 and lines[0].startswith("notes.txt: ")


@both
def test_what_cannot_be_asked_is_one_error(shared: Repo, server: Server) -> None:
    for words, *arguments in (
        ("--objects nor --fix", "--remote", "--fix"),
        ("does not appear to be a git repository", "--remote=frob"),
        ("bad revision", "--remote=origin", "frob"),
    ):
        code, _, said = told(shared, *arguments)
        assert code in (128, 129) and words in said and "Traceback" not in said
    shared.git("config", "lfs.customtransfer.x.path", "true")
    shared.git("config", "lfs.standalonetransferagent", "x")
    if shared.git("remote", "get-url", "origin").startswith("http"):
        with pytest.raises(ThetaError, match="transfer agent"):
            asked(shared)
    shared.git("config", "--unset", "lfs.standalonetransferagent")
    server.stop()
    shared.git("remote", "remove", "origin")
    with pytest.raises(ThetaError, match="there is no remote"):
        asked(shared)

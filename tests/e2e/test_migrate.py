"""Whole histories become ours, and git-lfs's or plain again: all trees equal but for what git holds of the models."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

LFS = "filter=lfs diff=lfs merge=lfs -text"
THETA = "filter=theta merge=theta -text"
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def model(seed: int, changed: int = 0, size: int = 30_000) -> dict[str, np.ndarray]:
    """Two models with the same seed differ in a few numbers of one tensor."""
    numbers = np.random.default_rng(seed)
    state = {f"h.{index}": numbers.standard_normal(size, dtype="f4") for index in range(3)}
    state["h.0"][:changed] += 1e-3
    return state


def fresh(path: Path, *, lfs: bool = False, form: str = "sha1") -> Repo:
    repo = Repo(path)
    path.mkdir()
    repo.git("init", "--quiet", "--initial-branch=main", f"--object-format={form}")
    if lfs:
        repo.git("lfs", "install", "--local")
    repo.git("theta", "install", "--local")
    return repo


def tag(repo: Repo, name: str, of: str, *more: str) -> None:
    repo.git("tag", *more, "-a", "-m", f"about {name}", name, of)


def grow(repo: Repo) -> None:
    """A history with branches, a merge, tags of tags, an odd author, models in folders, moved, executable and gone."""
    repo.write("readme.txt", b"before any model\n")
    repo.commit("first")
    repo.write("m.safetensors", model(1))
    repo.write("deep/er/x y.safetensors", model(2))
    repo.write("deep/notes.md", b"notes\n")
    repo.commit("models")
    tag(repo, "v1", "HEAD")
    repo.git("switch", "--quiet", "-c", "side")
    repo.write("m.safetensors", model(1, changed=5))
    repo.commit("side of m")
    repo.git("switch", "--quiet", "main")
    repo.git("mv", "deep/er/x y.safetensors", "moved.safetensors")
    repo.write("empty.safetensors", b"")
    (repo.path / "m.safetensors").chmod(0o755)
    (repo.path / "link.safetensors").symlink_to("m.safetensors")
    repo.git("add", "--all")
    repo.git("-c", "user.name=Ünïcödé  Name", "commit", "--quiet", "-m", "one\n\ntwo\n", "--author", "O <o@o> ")
    repo.git("merge", "--quiet", "--no-edit", "side")
    repo.git("rm", "--quiet", "moved.safetensors")
    repo.commit("gone")
    tag(repo, "v2", "HEAD")
    tag(repo, "tag-of-tag", "v2")
    repo.git("tag", "light", "HEAD~1")
    repo.git("tag", "of-a-tree", "HEAD^{tree}")
    repo.git("tag", "of-a-blob", "HEAD:readme.txt")


def start(path: Path, kind: str) -> Repo:
    repo = fresh(path, lfs=kind == "lfs")
    if kind == "lfs":
        repo.write(".gitattributes", f"*.safetensors {LFS}\n*.zip {LFS}\n".encode())
        repo.commit("attributes")
    grow(repo)
    return repo


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Histories that the first test to ask for them has built."""
    return {}


def copied(made: dict[str, Path], kind: str, directory: Path) -> Repo:
    if kind not in made:
        made[kind] = start(directory / "made", kind).path
    return Repo(Path(shutil.copytree(made[kind], directory / "old", symlinks=True)))


@pytest.fixture(params=["plain", "lfs"])
def old(request: pytest.FixtureRequest, made: dict[str, Path], tmp_path: Path) -> Repo:
    return copied(made, str(request.param), tmp_path)


@pytest.fixture
def plain(made: dict[str, Path], tmp_path: Path) -> Repo:
    return copied(made, "plain", tmp_path)


def refs(repo: Repo) -> dict[str, str]:
    rows = repo.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags").splitlines()
    return dict(row.split() for row in rows)


def commits(repo: Repo) -> list[str]:
    return repo.git("rev-list", "--topo-order", "--reverse", "--branches", "--tags").split()


def rows(repo: Repo, commit: str) -> dict[str, tuple[str, str]]:
    """Mode and SHA-256 of each file of a commit as a checkout writes it, .gitattributes aside."""
    found = {}
    for row in repo.run("ls-tree", "-r", "-z", commit).stdout.decode().split("\0")[:-1]:
        meta, _, path = row.partition("\t")
        if path != ".gitattributes":
            found[path] = (meta.split()[0], meta.split()[2])
    return found


def checked_out(repo: Repo, commit: str) -> dict[str, str]:
    """The SHA-256 of all files of a commit but .gitattributes, as the filters write them."""
    with tarfile.open(fileobj=BytesIO(repo.run("archive", commit).stdout)) as archive:
        members = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        contents = {name: file.read() for name, file in members.items() if file and name != ".gitattributes"}
    return {name: sha256(content).hexdigest() for name, content in contents.items()}


def headers(repo: Repo, commit: str) -> list[str]:
    """A commit without the names of its tree and parents."""
    lines = repo.run("cat-file", "commit", commit).stdout.decode().split("\n")
    return [line.split()[0] if line.startswith(("tree ", "parent ")) else line for line in lines]


def files(repo: Repo) -> dict[str, str]:
    names = repo.run("ls-files", "-z").stdout.decode().split("\0")[:-1]
    return {name: repo.sha(name) for name in names if name != ".gitattributes"}


# -- there -----------------------------------------------------------------------------------------------------------


def test_every_commit_is_the_same_with_manifests(old: Repo) -> None:
    before, names, present = commits(old), refs(old), files(old)
    contents = [checked_out(old, commit) for commit in before]
    old.git("theta", "migrate", "import")
    after = commits(old)
    assert len(after) == len(before)
    assert [checked_out(old, commit) for commit in after] == contents
    for was, now in zip(before, after, strict=True):
        assert headers(old, now) == headers(old, was)
        modes = [{path: mode for path, (mode, _) in rows(old, commit).items()} for commit in (was, now)]
        assert modes[0] == modes[1]
        for path, (mode, oid) in rows(old, now).items():
            is_model = path.endswith(".safetensors") and path != "empty.safetensors" and mode != "120000"
            assert old.run("cat-file", "blob", oid).stdout.startswith(b"git-theta-btm manifest") == is_model
            assert is_model or (mode, oid) == rows(old, was)[path]
    first = 0 if not (old.path / ".git/lfs/objects").exists() else 1
    assert after[: first + 1] == before[: first + 1]  # nothing in them changes
    assert set(refs(old)) == set(names)
    assert refs(old)["refs/tags/of-a-tree"] == names["refs/tags/of-a-tree"]
    assert refs(old)["refs/tags/of-a-blob"] == names["refs/tags/of-a-blob"]
    assert old.git("rev-parse", "tag-of-tag^{commit}") == old.git("rev-parse", "v2^{commit}") == after[-1]
    assert old.git("cat-file", "tag", "v1").partition("\n")[2] == (
        f"type commit\ntag v1\ntagger {old.git('for-each-ref', '--format=%(tagger)', 'refs/tags/v1')}\n\nabout v1"
    )
    assert old.status() == ""
    assert files(old) == present
    old.git("fsck", "--strict", "--no-dangling")
    assert json.loads(old.git("theta", "fsck", "--json"))["problems"] == []


def test_attributes(old: Repo) -> None:
    was_lfs = (old.path / ".gitattributes").exists()
    old.git("theta", "migrate", "import")
    lines = old.blob(".gitattributes", "main").decode()
    assert lines == (f"*.safetensors {THETA}\n*.zip {LFS}\n" if was_lfs else f"*.safetensors {THETA}\n")
    assert old.run("cat-file", "-e", "main~4:.gitattributes", check=False).returncode == (0 if was_lfs else 128)


def test_a_version_is_stored_in_terms_of_the_one_before(tmp_path: Path) -> None:
    repo = fresh(tmp_path / "repo")
    for name, seed in (("main", 1), ("side", 2)):
        repo.git("switch", "--quiet", "--orphan", name)
        for changed in (0, 500_000):
            repo.write("m.safetensors", model(seed, changed, size=600_000))
            repo.commit()
    repo.git("theta", "migrate", "import")
    for name in ("main", "side"):
        old, new = (
            {entry.name: entry.digest for entry in repo.manifest("m.safetensors", revision).entries}["h.0"]
            for revision in (f"{name}~1", name)
        )
        lines = {stored.rest: stored.kind for stored in repo.manifest("m.safetensors", name).objects}
        assert lines[new, old] == "delta"


# -- and back --------------------------------------------------------------------------------------------------------


def test_export_gives_the_same_commits(old: Repo) -> None:
    names, present = refs(old), files(old)
    kind = "lfs" if (old.path / ".gitattributes").exists() else "plain"
    old.git("theta", "migrate", "import")
    assert refs(old) != names
    shutil.rmtree(old.path / ".git/lfs/objects", ignore_errors=True)
    old.git("theta", "migrate", "export", "--to", kind)
    assert refs(old) == names
    assert old.status() == ""
    assert files(old) == present
    if kind == "lfs":
        old.git("lfs", "fsck")


def test_undo_and_forget(plain: Repo) -> None:
    names, present = refs(plain), files(plain)
    done = plain.run("theta", "migrate", "import")
    assert b"git theta migrate undo" in done.stderr
    migrated = refs(plain)
    plain.git("theta", "migrate", "undo")
    assert refs(plain) == names
    assert plain.status() == ""
    assert files(plain) == present
    assert plain.run("theta", "migrate", "undo", check=False).returncode == 128
    plain.git("theta", "migrate", "import")
    assert refs(plain) == migrated
    plain.git("theta", "migrate", "forget")
    assert plain.git("for-each-ref", "refs/theta") == ""
    plain.git("reflog", "expire", "--expire=now", "--all")
    plain.git("gc", "--quiet", "--prune=now")
    plain.git("theta", "prune", "--expire=now")
    assert plain.run("cat-file", "-e", names["refs/heads/main"], check=False).returncode == 1
    assert json.loads(plain.git("theta", "fsck", "--json"))["problems"] == []


def all_refs(repo: Repo) -> str:
    return repo.git("for-each-ref", "--format=%(refname) %(objectname)")


def test_a_dry_run_of_undo_and_forget_names_refs_and_changes_none(plain: Repo) -> None:
    names = refs(plain)
    plain.git("theta", "migrate", "import")
    moved = {name for name, oid in refs(plain).items() if names[name] != oid}
    before, present = all_refs(plain), files(plain)
    assert set(plain.git("theta", "migrate", "undo", "-n").splitlines()) == moved
    originals = {name.replace("refs/", "refs/theta/original/1/", 1) for name in moved}
    assert set(json.loads(plain.git("theta", "migrate", "forget", "-n", "--json"))["refs"]) == originals
    assert (all_refs(plain), files(plain), plain.status()) == (before, present, "")
    plain.git("branch", "--force", "side", "main")
    done = plain.run("theta", "migrate", "undo", "--dry-run", check=False)
    assert done.returncode == 128 and b"refs/heads/side" in done.stderr


def test_undo_leaves_new_work_alone(plain: Repo) -> None:
    plain.git("theta", "migrate", "import")
    plain.write("m.safetensors", model(9))
    head = plain.commit("new work")
    done = plain.run("theta", "migrate", "undo", check=False)
    assert done.returncode == 128
    assert plain.git("rev-parse", "HEAD") == head


def test_a_second_import_finds_nothing(plain: Repo) -> None:
    plain.git("theta", "migrate", "import")
    names = refs(plain)
    answer = json.loads(plain.git("theta", "migrate", "import", "--json"))
    assert (answer["commits"], answer["refs"], answer["versions"]) == (0, [], [])
    assert refs(plain) == names


# -- what is chosen --------------------------------------------------------------------------------------------------


def test_dry_run(old: Repo) -> None:
    names = refs(old)
    kind = "lfs" if (old.path / ".gitattributes").exists() else "plain"
    answer = json.loads(old.git("theta", "migrate", "import", "--dry-run", "--json"))
    found = [(item["path"], item["kind"]) for item in answer["versions"]]
    assert sorted(found) == [("deep/er/x y.safetensors", kind), ("m.safetensors", kind), ("m.safetensors", kind)]
    assert refs(old) == names
    assert not (old.theta / "objects").exists()
    assert old.git("count-objects", "-v").splitlines()[2] == "in-pack: 0"


def test_patterns_and_refs(plain: Repo) -> None:
    names = refs(plain)
    plain.git("theta", "migrate", "import", "--include", "/deep/**", "--include-ref", "main")
    moved = {name for name, oid in refs(plain).items() if oid != names[name]}
    assert moved == {"refs/heads/main"}
    assert plain.blob("deep/er/x y.safetensors", "main~3").startswith(b"git-theta-btm")
    assert not plain.blob("m.safetensors", "main").startswith(b"git-theta-btm")
    assert not plain.blob("moved.safetensors", "main~1").startswith(b"git-theta-btm")
    assert plain.status() == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["import", "--include", "*"], 129),
        (["import", "--include-ref", "nowhere"], 129),
        (["export", "--include", "*.pt"], 129),
        (["undo", "--include", "*.pt"], 129),
        (["forget", "--include-ref", "main"], 129),
        (["undo", "--to", "plain"], 129),
        (["import", "--to", "plain"], 129),
        (["undo"], 128),
    ],
)
def test_what_makes_no_sense(plain: Repo, arguments: list[str], code: int) -> None:
    names = refs(plain)
    assert plain.run("theta", "migrate", *arguments, check=False).returncode == code
    assert refs(plain) == names


# -- what is in the way ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["changes", "attributes", "filters", "shallow", "linked"])
def test_nothing_is_done_unless_all_is_ready(plain: Repo, tmp_path: Path, what: str) -> None:
    if what == "changes":
        plain.write("readme.txt", b"changed\n")
    elif what == "attributes":
        plain.write(".gitattributes", b"*.txt text\n")
    elif what == "filters":
        plain.git("theta", "uninstall", "--local")
    elif what == "shallow":
        plain.git("clone", "--quiet", "--depth=1", plain.path.as_uri(), str(tmp_path / "shallow"))
        plain = Repo(tmp_path / "shallow")
        plain.git("theta", "install", "--local")
    else:
        plain.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "side")
        Repo(tmp_path / "linked").write("readme.txt", b"changed\n")
    names, status = refs(plain), plain.status()
    done = plain.run("theta", "migrate", "import", check=False)
    assert done.returncode == 128
    assert len(done.stderr.splitlines()) == 1
    assert (refs(plain), plain.status()) == (names, status)


def test_linked_worktrees_and_detached_heads_follow(plain: Repo, tmp_path: Path) -> None:
    plain.git("worktree", "add", "--quiet", str(tmp_path / "linked"), "side")
    plain.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "detached"), "main~1")
    worktrees = [Repo(tmp_path / "linked"), Repo(tmp_path / "detached")]
    present = [files(one) for one in worktrees]
    plain.git("theta", "migrate", "import")
    assert [one.status() for one in worktrees] == ["", ""]
    assert [files(one) for one in worktrees] == present
    assert worktrees[1].git("rev-parse", "HEAD") == plain.git("rev-parse", "main~1")
    assert worktrees[0].git("rev-parse", "--abbrev-ref", "HEAD") == "side"


def test_an_lfs_object_that_is_nowhere(tmp_path: Path) -> None:
    repo = start(tmp_path / "repo", "lfs")
    names = refs(repo)
    lost = repo.git("cat-file", "blob", "v1:m.safetensors").split("sha256:")[1][:64]
    (repo.path / ".git/lfs/objects" / lost[:2] / lost[2:4] / lost).unlink()
    done = repo.run("theta", "migrate", "import", check=False)
    assert done.returncode == 128
    assert lost in done.stderr.decode()
    assert "m.safetensors" in done.stderr.decode()
    assert refs(repo) == names
    assert repo.status() == ""


def test_a_corrupt_lfs_object(tmp_path: Path) -> None:
    repo = start(tmp_path / "repo", "lfs")
    oid = repo.git("cat-file", "blob", "v1:m.safetensors").split("sha256:")[1][:64]
    path = repo.path / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    done = repo.run("theta", "migrate", "import", check=False)
    assert done.returncode == 128
    assert b"corrupt" in done.stderr


def test_lfs_objects_are_fetched(tmp_path: Path) -> None:
    repo = start(tmp_path / "repo", "lfs")
    repo.git("init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", (tmp_path / "remote.git").as_uri())
    repo.git("push", "--quiet", "origin", "--all")
    clone = Repo(tmp_path / "clone")
    subprocess.run(
        ["git", "clone", "--quiet", (tmp_path / "remote.git").as_uri(), str(clone.path)],
        env={**os.environ, "GIT_LFS_SKIP_SMUDGE": "1"},
        check=True,
    )
    clone.git("theta", "install", "--local")
    clone.git("theta", "migrate", "import")
    assert clone.sha("m.safetensors") == repo.sha("m.safetensors")  # it was a pointer in this worktree
    assert clone.status() == ""


def test_it_is_killed(plain: Repo) -> None:
    """All refs are where they were or where they are to be, and no file is ever lost."""
    names, present = refs(plain), files(plain)
    plain.git("theta", "migrate", "import")
    migrated = refs(plain)
    plain.git("theta", "migrate", "undo")
    chance = random.Random(0)
    for _ in range(5):
        with subprocess.Popen(
            ["git", "theta", "migrate", "import"],
            cwd=plain.path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            time.sleep(chance.uniform(0.2, 1.2))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for lock in (plain.path / ".git").rglob("*.lock"):
            lock.unlink()
        assert refs(plain) in (names, migrated)
        plain.git("reset", "--quiet", "--hard")
        assert files(plain) == present
        assert plain.status() == ""
        if refs(plain) == migrated:
            plain.git("theta", "migrate", "undo")


# -- odd histories ---------------------------------------------------------------------------------------------------


def test_lines_that_would_win_over_ours(tmp_path: Path) -> None:
    repo = fresh(tmp_path / "repo", lfs=True)
    root = f"*.safetensors {LFS}\nspecial.safetensors -filter\n".encode()
    repo.write(".gitattributes", root)
    repo.write("sub/.gitattributes", f"/*.safetensors {LFS}".encode())
    shas = {path: repo.write(path, model(seed)) for seed, path in enumerate(
        ["a.safetensors", "special.safetensors", "sub/b [1].safetensors", "sub/c/d.safetensors"]
    )}  # fmt: skip
    head = repo.commit()
    repo.git("theta", "migrate", "import")
    for path, sha in shas.items():
        assert repo.git("check-attr", "filter", path).endswith(": theta")
        assert repo.sha(path) == sha
    assert repo.status() == ""
    assert repo.git("ls-tree", "-r", "--name-only", "HEAD") == repo.git("ls-tree", "-r", "--name-only", head)
    repo.git("clone", "--quiet", ".", str(tmp_path / "clone"))
    repo.git("theta", "migrate", "export", "--to", "plain")
    for path, sha in shas.items():
        assert sha256(repo.blob(path, "HEAD")).hexdigest() == sha
        assert repo.git("check-attr", "filter", path).split(": ")[-1] in ("unspecified", "unset")
    assert repo.status() == ""


def test_a_bare_repository(plain: Repo, tmp_path: Path) -> None:
    plain.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    bare = Repo(tmp_path / "bare.git")
    names = refs(bare)
    bare.git("theta", "migrate", "import")
    assert refs(bare) != names
    bare.git("fsck", "--strict", "--no-dangling")
    bare.git("theta", "migrate", "export", "--to", "plain")
    assert refs(bare) == names


def test_a_signature_goes_where_a_commit_changes(tmp_path: Path) -> None:
    repo = fresh(tmp_path / "repo")
    repo.write("m.safetensors", model(1))
    tree = repo.git("rev-parse", repo.commit() + "^{tree}")
    text = (
        f"tree {tree}\nauthor A <a@a> 1700000000 +0130\ncommitter B <b@b> 1700000001 -0000\n"
        "gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n"
        "encoding ISO-8859-1\nodd header\n\nsigned \xe9\n\n"
    ).encode("latin-1")
    signed = repo.run("hash-object", "-t", "commit", "-w", "--stdin", stdin=text).stdout.decode().strip()
    repo.git("reset", "--quiet", "--hard", signed)
    repo.run("update-ref", "refs/heads/empty", repo.git("commit-tree", EMPTY, "-m", "empty"))
    repo.git("theta", "migrate", "import")
    new = repo.run("cat-file", "commit", "HEAD").stdout
    assert new.split(b"\n", 1)[1] == text.split(b"gpgsig")[0].split(b"\n", 1)[1] + text[text.index(b"encoding") :]


def test_no_history_at_all(tmp_path: Path) -> None:
    repo = fresh(tmp_path / "repo")
    answer = json.loads(repo.git("theta", "migrate", "import", "--json"))
    assert answer == {"version": 1, "refs": [], "commits": 0, "versions": []}


def test_sha256_repository(tmp_path: Path) -> None:
    repo = fresh(tmp_path / "repo", form="sha256")
    sha = repo.write("m.safetensors", model(1))
    repo.commit()
    names = refs(repo)
    repo.git("theta", "migrate", "import")
    assert refs(repo) != names
    assert (repo.status(), repo.sha("m.safetensors")) == ("", sha)
    repo.git("fsck", "--strict", "--no-dangling")

"""Reading a repository never runs anything from it, and writes nowhere but into the worktree and the Git directory."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm import pack
from git_theta_btm.layout import Layout
from git_theta_btm.manifest import FIRST_LINE, Blob, Digest, Entry, Manifest, Stored
from git_theta_btm.store import put
from git_theta_btm.tensor import DTYPES, Tensor


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.canary}'",)


def torch_zip(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": bomb}, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", bytes(100))
    return file.getvalue()


def torch_saved(bomb: Bomb) -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({"w": torch.ones(10_000), "bomb": bomb}, file)
    return file.getvalue()


def torch_legacy(bomb: Bomb) -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save({"w": torch.ones(10_000), "bomb": bomb}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def numpy_objects(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([bomb], dtype=object), allow_pickle=True)
    return file.getvalue()


def numpy_archive(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    np.savez(file, w=np.ones(10_000), bomb=np.array([bomb], dtype=object))
    return file.getvalue()


BOMBS = [torch_zip, torch_saved, torch_legacy, numpy_objects, numpy_archive, pickle.dumps]


@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
def test_a_pickle_is_never_unpickled(repo: Repo, tmp_path: Path, make: Callable[[Bomb], bytes]) -> None:
    canary = tmp_path / "canary"
    data = make(Bomb(str(canary)))
    sha = repo.write("m.pt", data)
    repo.commit()
    repo.git("checkout", "--quiet", "HEAD~")
    repo.git("checkout", "--quiet", "main")
    repo.git("diff", "HEAD~", "HEAD")
    assert repo.sha("m.pt") == sha
    assert repo.status() == ""
    assert not canary.exists()
    pickle.loads(pickle.dumps(Bomb(str(canary))))
    assert canary.exists()


# -- manifests that someone wrote by hand ----------------------------------------------------------------------------


def signed(*lines: str) -> bytes:
    """A manifest whose digest is right, whatever it says."""
    identity = "".join(line + "\n" for line in lines if not line.startswith("object "))
    body = "".join(line + "\n" for line in lines)
    return f"{FIRST_LINE}\ndigest {Digest.of(identity.encode())}\n{body}".encode()


EMPTY = Digest.of(b"")
HUGE = 1 << 62


def stored(repo: Repo, layout: Layout, entries: tuple[Entry, ...], size: int, *blobs: bytes) -> bytes:
    """A manifest whose objects are all there."""
    text = layout.dumps()
    ((_, packed),) = pack.dumps({Digest.of(data): data for data in (text, *blobs)})
    objects = (Stored("pack", put(repo.store, packed), len(packed)),)
    return Manifest("safetensors", size, Blob(Digest.of(text), len(text)), entries, (), objects).dumps()


def tensor(name: str, data: bytes) -> Entry:
    return Entry(name, Tensor(DTYPES["U8"], (len(data),)), Digest.of(data))


HOSTILE: dict[str, Callable[[Repo], bytes]] = {
    "absurd file size": lambda repo: stored(repo, Layout((), (), b"x"), (), HUGE),
    "absurd tensor": lambda repo: signed(
        "format npz", f"size {HUGE}", f"layout 100 {EMPTY}", f"param a U8[{HUGE}] {EMPTY}"
    ),
    "absurd layout": lambda repo: signed("format npz", "size 1", f"layout {HUGE} {EMPTY}"),
    "absurd pack": lambda repo: signed("format npz", "size 1", f"layout 1 {EMPTY}", f"object pack {EMPTY} {HUGE}"),
    "overlap": lambda repo: stored(
        repo, Layout((0, 3), (), b""), (tensor("a", b"aaaaa"), tensor("b", b"bbbbb")), 8, b"aaaaa", b"bbbbb"
    ),
    "beyond the end": lambda repo: stored(repo, Layout((100,), (), b""), (tensor("a", b"aaaaa"),), 5, b"aaaaa"),
    "gap without glue": lambda repo: stored(repo, Layout((3,), (), b""), (tensor("a", b"aaaaa"),), 8, b"aaaaa"),
    "another size": lambda repo: stored(
        repo, Layout((0,), (), b""), (Entry("a", Tensor(DTYPES["U8"], (9,)), Digest.of(b"aaaaa")),), 9, b"aaaaa"
    ),
    "path as object": lambda repo: signed("format npz", "size 1", f"layout 1 {EMPTY}", "object pack ../../x 1"),
    "path as digest": lambda repo: signed("format npz", "size 1", f"layout 1 {'../' * 21}x"),
    "absolute path": lambda repo: signed("format npz", "size 1", "layout 1 /etc/passwd"),
    "unknown kind": lambda repo: signed(
        "format npz", "size 1", f"layout 1 {EMPTY}", f"object sh {EMPTY} 1 touch canary"
    ),
    "unknown line": lambda repo: signed("format npz", "size 1", f"layout 1 {EMPTY}", "run touch canary"),
    "not signed": lambda repo: signed("format npz", "size 1", f"layout 1 {EMPTY}").replace(b"npz", b"npy"),
    "long number": lambda repo: signed("format npz", f"size {'9' * 200_000}", f"layout 1 {EMPTY}"),
    "deep brackets": lambda repo: signed(
        "format npz", "size 1", f"layout 1 {EMPTY}", f"param {'[' * 200_000} U8[] {EMPTY}"
    ),
    "escape": lambda repo: signed("format \x1b]0;owned\x07", "size 1", f"layout 1 {EMPTY}"),
    "binary": lambda repo: FIRST_LINE.encode() + b"\n" + bytes(range(256)) * 10,
    "conflict": lambda repo: FIRST_LINE.encode() + b"\n<<<<<<< HEAD\n=======\n>>>>>>> theirs\n",
    "only the first line": lambda repo: FIRST_LINE.encode() + b"\n",
    "a newer version": lambda repo: b"git-theta-btm manifest 1: of another wording\n",
}


def everything(root: Path, *but: Path) -> dict[str, Any]:
    """All files below ``root`` and their times, apart from some folders."""
    return {
        str(path): path.lstat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(other) for other in but)
    }


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_manifest_becomes_a_stub(repo: Repo, tmp_path: Path, home: Path, kind: str) -> None:
    text = HOSTILE[kind](repo)
    repo.write("notes.txt", b"so that there is something")
    clean = repo.commit("clean")
    oid = repo.run("hash-object", "-w", "--no-filters", "--stdin", stdin=text).stdout.decode().strip()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},m.safetensors")
    repo.git("commit", "--quiet", "--message", "hostile")
    before = everything(tmp_path, repo.path), everything(home)
    for command in (("reset", "--hard"), ("checkout", "--quiet", clean), ("checkout", "--quiet", "main")):
        done = repo.run(*command)
        assert b"Traceback" not in done.stderr
        assert b"\x1b" not in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith(b"theta: ")]) <= 1
    assert (repo.path / "m.safetensors").read_bytes() == text
    assert (everything(tmp_path, repo.path), everything(home)) == before
    assert not (repo.path / "canary").exists()
    assert repo.status() == ""
    repo.git("checkout", "--quiet", clean)  # and one can get away from it
    assert not (repo.path / "m.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["../../../tmp/owned", "/etc/passwd", ".git/config", "a\nobject pack x", "\x1b[2J", "CON"]
)
def test_a_name_is_only_a_name(repo: Repo, name: str) -> None:
    text = stored(repo, Layout((0,), (), b""), (tensor(name, b"aaaaa"),), 5, b"aaaaa")
    oid = repo.run("hash-object", "-w", "--no-filters", "--stdin", stdin=text).stdout.decode().strip()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},m.safetensors")
    repo.git("commit", "--quiet", "--message", "a name")
    repo.git("reset", "--quiet", "--hard")
    assert (repo.path / "m.safetensors").read_bytes() == b"aaaaa"
    assert repo.git("show", "HEAD").isprintable() or "\x1b" not in repo.git("show", "HEAD")


def test_attributes_choose_no_program(repo: Repo, tmp_path: Path) -> None:
    """A repository can say which files are filtered, never by what."""
    canary = tmp_path / "canary"
    (repo.path / ".gitattributes").write_text(f"*.dat filter=theta\n*.x filter=touch\\ {canary}\n")
    repo.write("git-theta-filter", f"#!/bin/sh\ntouch '{canary}'\n".encode())
    (repo.path / "git-theta-filter").chmod(0o755)
    repo.write("m.dat", b"some bytes")
    repo.write("m.x", b"some bytes")
    repo.commit()
    assert repo.status() == ""
    assert not canary.exists()


def test_python_modules_in_the_worktree_are_not_imported(repo: Repo, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for module in ("xxhash", "sqlite3", "json", "git_theta_btm", "sitecustomize", "numpy"):
        repo.write(f"{module}.py", f"open({str(canary)!r}, 'w')\n".encode())
    repo.write("m.dat", os.urandom(2_000_000))
    repo.commit()
    (repo.path / "m.dat").unlink()
    repo.git("checkout", "--quiet", "m.dat")
    assert not canary.exists()

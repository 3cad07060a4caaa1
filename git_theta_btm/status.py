"""The state of each model file: what is staged and modified, counted in parameters, and what is not here.

git decides which files differ (``git status``, with its own stat cache), and only those are looked into.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from .changes import Change, diff
from .errors import ManifestError, ThetaError
from .git import BlobReader, quote
from .manifest import Manifest, loads
from .repository import Repository, attributes, read_manifest, read_stub

_NONE = "0" * 40


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One model file. ``states`` are of ``conflict staged modified deleted stub missing plain broken``, or ``clean``;
    changes are those of HEAD to index, and of index to worktree; ``missing`` counts objects of the staged version, and
    ``problem`` is what is wrong with a manifest or a stub that is ``broken``."""

    path: str
    states: tuple[str, ...]
    parameters: int = 0
    staged: tuple[Change, ...] = ()
    modified: tuple[Change, ...] = ()
    missing: int = 0
    problem: str = ""


class Row(NamedTuple):
    """What ``git status`` says of a path: its two letters, and the objects in HEAD and index."""

    letters: str
    committed: str
    staged: str


def status(repository: Repository) -> list[FileStatus]:
    """All model files of index and HEAD, in order of their paths. Raises ``ThetaError`` in a bare repository."""
    repository.worktree()
    rows = dict(_rows(repository))
    texts = {model.path: (model.oid, model.text) for model in repository.models()}
    unknown = [path for path in rows if path not in texts]
    others = attributes(repository.git, unknown, "filter")
    paths = sorted([*texts, *(path for path in unknown if others[path]["filter"] == "theta")])
    with repository.git.blobs() as blobs:
        look = _Look(repository, blobs)
        return [look(path, rows.get(path, Row("..", _NONE, texts.get(path, (_NONE, None))[0]))) for path in paths]


def _rows(repository: Repository) -> Iterator[tuple[str, Row]]:
    """The rows of ``git status --porcelain=v2``: ``1 XY sub mH mI mW hH hI path``, ``u XY sub m1 m2 m3 mW h1 h2 h3
    path``."""
    options = ("--porcelain=v2", "-z", "--untracked-files=no", "--no-renames", "--ignore-submodules=all")
    for field in repository.git.fields("status", *options):
        if field.startswith("1 "):
            words = field.split(" ", 8)
            yield words[8], Row(words[1], words[6], words[7])
        elif field.startswith("u "):
            words = field.split(" ", 10)
            yield words[10], Row("UU", words[8], words[8])


class _Look:
    """Looks at one path after the other."""

    def __init__(self, repository: Repository, blobs: BlobReader) -> None:
        self._repository, self._blobs = repository, blobs

    def __call__(self, path: str, row: Row) -> FileStatus:
        if row.letters == "UU":
            return FileStatus(path, ("conflict",))
        staged, modified = row.letters[0], row.letters[1]
        text = read_manifest(self._blobs, row.staged)
        index, problem = _read(text)
        stub = read_stub(self._repository.absolute(path))
        if not problem and stub != text and (problem := _read(stub)[1]):
            problem += "; 'git checkout -- PATH' brings back what is staged"
        missing = len(self._repository.missing(index)) if index else 0
        flags = {
            "staged": staged != ".",
            "modified": modified not in ".D",
            "deleted": modified == "D",
            "stub": stub is not None,
            "missing": missing > 0,
            "plain": text is None and row.staged.strip("0") != "" and self._blobs.read(row.staged, limit=1) != b"",
            "broken": problem != "",
        }
        return FileStatus(
            path,
            tuple(name for name, holds in flags.items() if holds) or ("clean",),
            len(index.entries) if index else 0,
            tuple(diff(_parsed(read_manifest(self._blobs, row.committed)), index)) if flags["staged"] else (),
            tuple(diff(index, self._worktree(path, stub))) if flags["modified"] else (),
            missing,
            problem,
        )

    def _worktree(self, path: str, stub: bytes | None) -> Manifest | None:
        """The manifest that ``git add`` would stage: git runs its filter, whose catalogue knows the answer by now.

        It is written as a loose object, since only its name would come back otherwise.
        """
        if stub is not None:
            return _parsed(stub)
        with suppress(ThetaError):  # what cannot be cleaned cannot be compared
            oid = self._repository.git.run("hash-object", "-w", "--stdin-paths", stdin=os.fsencode(quote(path)) + b"\n")
            return _parsed(read_manifest(self._blobs, oid.stdout.decode().strip()))
        return None


def _parsed(text: bytes | None) -> Manifest | None:
    return _read(text)[0]


def _read(text: bytes | None) -> tuple[Manifest | None, str]:
    """The manifest, and what is wrong with it."""
    try:
        return (None if text is None else loads(text)), ""
    except ManifestError as error:
        return None, str(error)

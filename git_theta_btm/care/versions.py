"""Every version of every model that a set of commits holds, in the order in which they came about."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from ..errors import ManifestError
from ..git import BlobReader
from ..manifest import Manifest, loads
from ..repository import Repository, read_manifest

_KEPT = 32  # parsed manifests: a walk comes back to the parents of a commit soon or never


@dataclass(frozen=True, slots=True)
class Step:
    """A commit, its parents, and the files that differ from its first parent: path and blob, None if it is gone."""

    commit: str
    parents: tuple[str, ...]
    files: tuple[tuple[str, str | None], ...]


def steps(repository: Repository, scope: Sequence[str]) -> list[Step]:
    """The commits of ``scope`` (words for ``git rev-list``), parents before children.

    Raises ``ThetaError`` if git finds no such revision.
    """
    listed = repository.git.run("rev-list", "--topo-order", "--reverse", "--parents", *scope).stdout.decode()
    rows = [tuple(line.split()) for line in listed.splitlines()]
    # Against the first parent only: what else a merge brought in belongs to commits of its own.
    pairs = "".join(" ".join(row[:2]) + "\n" for row in rows).encode()
    fields = repository.git.fields("diff-tree", "--stdin", "-r", "-z", "--root", "--no-renames", stdin=pairs)
    files = dict(_files(fields))
    return [Step(row[0], row[1:], tuple(files.get(row[0], ()))) for row in rows]


def _files(fields: Sequence[str]) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """``<commit>``, then ``:<mode> <mode> <old> <new> <letter>`` and ``<path>`` for each file."""
    words = iter(fields)
    files: list[tuple[str, str | None]] = []
    for word in words:
        if word.startswith(":"):
            oid = word.split(" ")[3]
            files.append((next(words), oid if oid.strip("0") else None))
        else:
            files = []
            yield word.strip(), files


class Manifests:
    """Parsed manifests by the name of their blob; the most recent few are kept."""

    def __init__(self, blobs: BlobReader) -> None:
        self._blobs = blobs
        self._others: set[str] = set()
        self.get = lru_cache(_KEPT)(self._get)

    def _get(self, oid: str) -> Manifest | None:
        """The manifest that a blob holds, None if it holds anything else, or a broken one."""
        text = None if oid in self._others else read_manifest(self._blobs, oid)
        with suppress(ManifestError):
            if text is not None:
                return loads(text)
        self._others.add(oid)  # most files are no models: each is looked at once
        return None


def located(repository: Repository, path: str) -> str:
    """A path that the user gave, relative to the root of the worktree; in a bare repository as it is."""
    if repository.root is None:
        return path
    directory, name = os.path.split(os.path.join(repository.here.directory, path))
    return os.path.relpath(os.path.join(os.path.realpath(directory), name), os.path.realpath(repository.root))

"""Histories: commits again with other files in their trees, and everything else in them as it was.

Nothing that exists is changed: the new commits stand beside the old ones, and what no change reaches stays the same
object. Authors, dates, messages and merges are kept byte for byte; signatures cannot be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from ..errors import ThetaError
from ..git import BlobReader
from ..setup.attributes import FILE
from .gitobjects import FILES, TREE, PackWriter, TreeEntry, dump_tree, headers, load_tree, with_headers

_DEPTH = 200  # directories within each other: each takes a few calls within each other here
_TREES = 4096  # parsed trees that are kept: those of a commit's parent are asked for again
_ATTRIBUTES = FILE.encode()


class Change(Protocol):
    """What is to become of files."""

    def file(self, path: str, oid: str, before: str | None) -> str | None:
        """The blob that takes the place of ``oid`` at ``path``, where the parent has ``before``.

        The same blob, if it is what the file is to be already; None if the file has no part in the change.
        """

    def attributes(self, content: bytes, directory: str, models: Sequence[str]) -> bytes:
        """The attributes file of a directory (which is empty, or ends with a slash) and of the files of the change
        below it, by their paths from there. An empty file is none."""


@dataclass(frozen=True, slots=True)
class _Tree:
    oid: str
    models: tuple[str, ...] = ()  # paths, from the directory, of the files that have a part in the change


class History:
    """Rewrites commits and tags. ``paths`` are those that the change is asked about; all, if there are none."""

    def __init__(self, reader: BlobReader, pack: PackWriter, change: Change, paths: Collection[str] | None) -> None:
        self._reader, self._pack, self._change = reader, pack, change
        self._paths = paths
        self._directories = {parent for path in paths or () for parent in _parents(path)}
        self._width = 20 if pack.algorithm == "sha1" else 32
        self._entries = lru_cache(_TREES)(self._read_entries)
        self._trees: dict[tuple[str, str], _Tree] = {}
        self._roots: dict[str, str] = {}  # of commits, as they were
        self._commits: dict[str, str] = {}

    def commits(self, commits: Iterable[str], done: Callable[[int], None]) -> None:
        """Rewrite commits, parents before children. Raises ``ThetaError`` naming the commit."""
        for count, commit in enumerate(commits, 1):
            try:
                self._commits[commit] = self._commit(commit)
            except ThetaError as error:
                raise type(error)(f"in commit {commit[:12]}: {error}") from None
            done(count)

    def renamed(self, oid: str) -> str:
        """What has become of a commit, or of a tag object."""
        return self._renamed(oid, b"commit" if oid in self._commits else b"tag")

    def _renamed(self, oid: str, kind: bytes) -> str:
        if kind != b"tag":
            return self._commits.get(oid, oid)  # a tag may be of a tree or a blob, too
        data = self._read(oid)
        (_, target), (_, kind), *rows = headers(data)
        new = self._renamed(target.decode(), kind)
        if new == target.decode():
            return oid
        return self._pack.add("tag", with_headers(data, [(b"object", new.encode()), (b"type", kind), *rows]))

    @property
    def rewritten(self) -> dict[str, str]:
        """The commits that are others now."""
        return {old: new for old, new in self._commits.items() if old != new}

    def _read(self, oid: str) -> bytes:
        data = self._reader.read(oid)
        if data is None:
            raise ThetaError(f"git has no object {oid}: run 'git fsck'")
        return data

    def _commit(self, oid: str) -> str:
        data = self._read(oid)
        old = list(headers(data))
        tree, parents = old[0][1].decode(), [value.decode() for key, value in old if key == b"parent"]
        self._roots[oid] = tree
        before = self._roots.get(parents[0]) if parents else None
        new = self._tree(tree, "", before).oid
        renamed = {tree: new, **{parent: self._commits.get(parent, parent) for parent in parents}}
        rows = [(key, renamed[value.decode()].encode() if key in (b"tree", b"parent") else value) for key, value in old]
        return oid if rows == old else self._pack.add("commit", with_headers(data, rows))

    # -- trees -------------------------------------------------------------------------------------------------------

    def _tree(self, oid: str, prefix: str, before: str | None) -> _Tree:
        if (oid, prefix) not in self._trees:
            if prefix.count("/") > _DEPTH:
                raise ThetaError(f"more than {_DEPTH} directories within each other")
            self._trees[oid, prefix] = self._new_tree(oid, prefix, before)
        return self._trees[oid, prefix]

    def _new_tree(self, oid: str, prefix: str, before: str | None) -> _Tree:
        earlier = {entry.name: entry for entry in self._entries(before)} if before else {}
        entries, models = [], list[str]()
        for entry in self._entries(oid):
            name = os.fsdecode(entry.name)
            new = self._entry(entry, prefix + name, earlier.get(entry.name))
            models += (f"{name}/{model}" if model else name for model in new.models)
            entries.append(replace(entry, oid=new.oid))
        if models:
            entries = list(self._with_attributes(entries, prefix, models))
        same = set(entries) == set(self._entries(oid))
        return _Tree(oid if same else self._pack.add("tree", dump_tree(entries)), tuple(models))

    def _entry(self, entry: TreeEntry, path: str, before: TreeEntry | None) -> _Tree:
        """What becomes of one row; a file of the change is itself its only model, under an empty path."""
        known = before.oid if before and (before.mode == TREE) == (entry.mode == TREE) else None
        if entry.mode == TREE and (self._paths is None or path in self._directories):
            return self._tree(entry.oid, path + "/", known)
        if entry.mode in FILES and (self._paths is None or path in self._paths):
            new = self._change.file(path, entry.oid, known)
            return _Tree(entry.oid) if new is None else _Tree(new, ("",))
        return _Tree(entry.oid)

    def _with_attributes(self, entries: list[TreeEntry], directory: str, models: list[str]) -> Iterator[TreeEntry]:
        present = next((entry for entry in entries if entry.name == _ATTRIBUTES), None)
        yield from (entry for entry in entries if entry is not present)
        if present and present.mode not in FILES:
            raise ThetaError(f"{FILE} is not a file")
        before = self._read(present.oid) if present else b""
        content = self._change.attributes(before, directory, models)
        if content == before and present:
            yield present
        elif content:
            yield TreeEntry(present.mode if present else FILES[0], _ATTRIBUTES, self._pack.add("blob", content))

    def _read_entries(self, oid: str) -> tuple[TreeEntry, ...]:
        return tuple(load_tree(self._read(oid), self._width))


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path

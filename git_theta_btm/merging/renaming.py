"""Renaming: a model that some heads have under a new name is merged under the old one, and then has the new one.

git follows a rename by what two versions of a file have in common. An expert has not a line in common with the seed: as
soon as the first one is merged into the new name, git no longer sees where that comes from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory

from ..git import Git
from ..repository import read_manifest
from .gathering import Gathered

_NO_OID = "0" * 40


def renames(git: Git, base: str | None, commits: Sequence[str]) -> dict[str, str]:
    """New names of models by those that they have in ``base``, where all commits that rename them agree, and where that
    stands in no other's way."""
    found: dict[str, set[str]] = {}
    models: set[str] = set()
    with git.blobs() as blobs:
        for commit in commits if base else ():
            for old, new, oid in _moved(git, base or "", commit):
                found.setdefault(old, set()).add(new)
                if read_manifest(blobs, oid) is not None:
                    models.add(old)
    agreed = {old: next(iter(new)) for old, new in found.items() if len(new) == 1 and old in models}
    trees = [_entries(git, commit, agreed) for commit in commits] if agreed else []
    return {old: new for old, new in agreed.items() if not any(old in tree and new in tree for tree in trees)}


def _moved(git: Git, base: str, commit: str) -> Iterator[tuple[str, str, str]]:
    """Old name, new name, and what is there now, of each file that a commit has renamed since ``base``."""
    fields = iter(git.fields("diff-tree", "-r", "-z", "--find-renames", "--diff-filter=R", base, commit))
    for meta, old, new in zip(fields, fields, fields, strict=True):
        yield old, new, meta.split()[3]


def undone(git: Git, commit: str, names: Mapping[str, str]) -> str:
    """A commit with the old names: a child of the one that is given, if that has new ones."""
    tree = _moving(git, commit, {new: old for old, new in names.items()}) if names else None
    return git.text("commit-tree", tree, "-p", commit, "-m", "old names") if tree else commit


def redone(git: Git, result: Gathered, names: Mapping[str, str]) -> Gathered:
    """The result with the new names."""
    tree = (_moving(git, result.tree, names) if names else None) or result.tree
    conflicts = tuple(replace(row, path=names.get(row.path, row.path)) for row in result.conflicts)
    return replace(result, tree=tree, conflicts=conflicts)


def _moving(git: Git, treeish: str, names: Mapping[str, str]) -> str | None:
    """The tree with other names; None if it has none of the files."""
    there = _entries(git, treeish, names)
    moves = [(old, new) for old, new in names.items() if old in there and new not in there]
    if not moves:
        return None
    lines = [f"0 {_NO_OID}\t{old}\0{' '.join(there[old])}\t{new}\0" for old, new in moves]
    with scratch(git) as other:
        other.run("read-tree", treeish)
        other.run("update-index", "-z", "--index-info", stdin=os.fsencode("".join(lines)))
        return other.text("write-tree")


def _entries(git: Git, treeish: str, names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Mode and object of all these names, old and new, that are there."""
    paths = [f":(literal){path}" for pair in names.items() for path in pair]
    rows = (row.partition("\t") for row in git.fields("ls-tree", "-z", "--full-tree", treeish, "--", *paths))
    return {path: (meta.split()[0], meta.split()[2]) for meta, _, path in rows}


@contextmanager
def scratch(git: Git) -> Iterator[Git]:
    """git with an index of its own, which is gone at the end."""
    with TemporaryDirectory() as directory:
        yield git.with_environment(GIT_INDEX_FILE=os.path.join(directory, "index"))

"""Gathering: while git merges all other files of several commits, two at a time, models only collect who changed them.

A gathered file is the manifest of the first head that changed it, with the blobs of all that did below it: close enough
to a manifest for git to follow it through a rename.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ThetaError
from ..git import Git
from ..manifest import is_manifest

OLDEST_GIT = (2, 38)  # git merge-tree --write-tree
_MARK = b"\ngathered "


@dataclass(frozen=True, slots=True)
class Unmerged:
    """One stage of a conflict, as ``ls-files -u`` has it."""

    mode: str
    oid: str
    stage: str
    path: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """The tree of all heads, with gathered files in it, the conflicts, and what the driver said about models."""

    tree: str
    conflicts: tuple[Unmerged, ...]
    said: tuple[str, ...] = ()


def gather(git: Git, commits: Sequence[str], driver: str) -> Gathered:
    """Merge commits one after the other, with ``driver`` for models. Raises ``ThetaError`` if git cannot, and for
    a model that it would merge as text."""
    from . import attributing, heads, renaming  # which the driver does without

    names = renaming.renames(git, heads.common_ancestor(git, commits), commits)
    current, *others = [renaming.undone(git, commit, names) for commit in commits]
    conflicts, said = dict[tuple[str, str], Unmerged](), list[str]()
    tree = git.text("rev-parse", f"{current}^{{tree}}")
    for commit in others:
        found = merge_trees(git, current, commit, driver)
        tree, again = found.tree, {stage.path for stage in found.conflicts}
        conflicts = {key: value for key, value in conflicts.items() if key[0] not in again}
        conflicts |= {(stage.path, stage.stage): stage for stage in found.conflicts}
        said += found.said
        current = git.text("commit-tree", tree, "-p", current, "-p", commit, "-m", "merged so far")
    found = renaming.redone(git, Gathered(tree, tuple(conflicts.values()), tuple(said)), names)
    attributing.refuse_text_merges(git, _both(found.conflicts))
    return found


def _both(conflicts: Sequence[Unmerged]) -> dict[str, list[str]]:
    """The blobs of files that are in conflict and gone on neither side."""
    sides: dict[str, list[str]] = {}
    for row in conflicts:
        if row.stage in "23":
            sides.setdefault(row.path, []).append(row.oid)
    return {path: oids for path, oids in sides.items() if len(oids) == 2}


def merge_trees(git: Git, ours: str, theirs: str, driver: str) -> Gathered:
    """git's own merge of two commits, in memory, with ``driver`` for models. Raises ``ThetaError`` if git cannot."""
    from .attributing import driven  # which the driver does without

    settings = ("-c", f"merge.theta.driver={driver}", "-c", "merge.theta.recursive=binary")
    options = (
        "--write-tree",
        "-z",
        "--no-messages",
        "--allow-unrelated-histories",
    )  # git has asked whether they may be
    with driven(git, ours, theirs) as more:
        done = git.run(*settings, *more, "merge-tree", *options, ours, theirs, check=False)
    said = done.stderr.decode(errors="replace").splitlines()
    if done.returncode > 1 or not done.stdout:
        if (version := git.version()) < OLDEST_GIT:
            have, need = (".".join(map(str, numbers)) for numbers in (version, OLDEST_GIT))
            raise ThetaError(f"git {have} cannot merge in memory, as -s theta does: {need} or newer is needed")
        raise ThetaError(f"git merge-tree failed: {' '.join(said)}")
    tree, *rows = os.fsdecode(done.stdout).rstrip("\0").split("\0")
    return Gathered(tree, tuple(_stage(row) for row in rows if row), tuple(said))


def _stage(row: str) -> Unmerged:
    meta, _, path = row.partition("\t")
    mode, oid, stage = meta.split()
    return Unmerged(mode, oid, stage, path)


def append(ours: bytes, ours_oid: str, theirs: bytes, theirs_oid: str) -> bytes:
    """What the driver leaves in the place of a model that both sides changed. Raises ``ThetaError`` for no model."""
    if not is_manifest(ours) or not is_manifest(theirs):
        raise ThetaError("one side is not stored parameter by parameter")
    manifest, blobs = split(ours)
    known = blobs or [ours_oid]
    return manifest + b"".join(b"gathered %b\n" % oid.encode() for oid in (*known, theirs_oid))


def split(text: bytes) -> tuple[bytes, list[str]]:
    """The first manifest of a gathered file, and the blobs of all that were gathered; none if it is a plain one."""
    manifest, mark, rest = text.partition(_MARK)
    if not mark:
        return text, []
    return manifest + b"\n", (b"gathered " + rest).decode().replace("gathered ", "").split()

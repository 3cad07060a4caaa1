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
    """The tree of all heads, with gathered files in it, and the conflicts in files that are no models."""

    tree: str
    conflicts: tuple[Unmerged, ...]


def gather(git: Git, commits: Sequence[str], driver: str) -> Gathered:
    """Merge commits one after the other, with ``driver`` for models. Raises ``ThetaError`` if git cannot."""
    current, conflicts = commits[0], dict[tuple[str, str], Unmerged]()
    tree = git.text("rev-parse", f"{current}^{{tree}}")
    for commit in commits[1:]:
        tree, stages = merge_trees(git, current, commit, driver)
        for path in {stage.path for stage in stages}:
            conflicts = {key: value for key, value in conflicts.items() if key[0] != path}
        conflicts |= {(stage.path, stage.stage): stage for stage in stages}
        current = git.text("commit-tree", tree, "-p", current, "-p", commit, "-m", "merged so far")
    return Gathered(tree, tuple(conflicts.values()))


def merge_trees(git: Git, ours: str, theirs: str, driver: str) -> tuple[str, list[Unmerged]]:
    """git's own merge of two commits, in memory, with ``driver`` for models; the tree and its conflicts."""
    options = ("-c", f"merge.theta.driver={driver}", "-c", "merge.theta.recursive=binary")
    done = git.run(*options, "merge-tree", "--write-tree", "-z", "--no-messages", ours, theirs, check=False)
    if done.returncode > 1:
        raise ThetaError(f"git merge-tree failed: {done.stderr.decode(errors='replace').strip()}")
    tree, *rows = os.fsdecode(done.stdout).rstrip("\0").split("\0")
    return tree, [_stage(row) for row in rows if row]


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

"""Unmerged: model files that a merge left in the index as two or three stages, and what puts an end to that.

All files are merged before the index is touched, and the index changes in one step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..checkout.switching import SKIP, STUBS, skips_smudge
from ..checkout.worktree import Means, Outcome, materialise
from ..errors import ThetaError
from ..git import Git
from ..manifest import Manifest, loads, spell
from ..remotes.hooks import MESSAGE, state
from ..repository import Repository, read_manifest
from . import pending
from .asking import based
from .asking import question as ask
from .choosing import Chosen, choose
from .filing import Merged, Question
from .heads import Head, Merge, Trees
from .launching import finish
from .threeway import pick

SIDES = {"base": "1", "ours": "2", "theirs": "3"}
_NO_OID = "0" * 40
_REGULAR = "100644"

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Stages:
    """A model file with a conflict: mode and blob of each stage, and the manifests of those that are models."""

    path: str
    rows: dict[str, tuple[str, str]]
    manifests: dict[str, Manifest]

    def side(self, name: str) -> Manifest:
        """The manifest of ``ours``, ``theirs`` or ``base``. Raises ``ThetaError`` if there is none."""
        if SIDES[name] not in self.manifests:
            has = "it is gone there: 'git rm' it, or take another" if SIDES[name] not in self.rows else "it is no model"
            raise ThetaError(f"{spell(self.path)}: {name} cannot be had: {has}")
        return self.manifests[SIDES[name]]

    @property
    def mode(self) -> str:
        """The file's mode in the index: ours', else theirs'."""
        return next((self.rows[stage][0] for stage in "231" if stage in self.rows), _REGULAR)


def unmerged(repository: Repository, paths: Sequence[str] = ()) -> list[Stages]:
    """The model files with conflicts below ``paths``, or all. Raises ``ThetaError`` for a path that has none."""
    repository.worktree()
    fields = repository.here.fields("ls-files", "-u", "-z", "--full-name", "--", *(paths or [":/"]))
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for field in fields:
        meta, _, path = field.partition("\t")
        mode, oid, stage = meta.split()
        found.setdefault(path, {})[stage] = (mode, oid)
    with repository.git.blobs() as blobs:
        trees = Trees(repository.git, blobs)
        stages = [Stages(path, rows, _manifests(trees, rows)) for path, rows in found.items()]
    models = [item for item in stages if item.manifests]
    if paths and not models:
        raise ThetaError(f"no model with a conflict at {paths[0]}")
    return models


def _manifests(trees: Trees, rows: dict[str, tuple[str, str]]) -> dict[str, Manifest]:
    texts = {stage: read_manifest(trees.blobs, oid) for stage, (_, oid) in rows.items()}
    return {stage: loads(text) for stage, text in texts.items() if text is not None}


# -- how they are merged -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conflict:
    """The conflicts of one merge or pick: of which commits, if git says so, and what is chosen for them."""

    repository: Repository
    chosen: Chosen | None
    heads: tuple[str, ...]
    pairs: Pairs

    def question(self, item: Stages) -> Question:
        """How one file is merged. Raises ``ThetaError`` if one side has no model, and ``UsageError``."""
        git, tips = self.repository.git, (item.side("ours"), item.side("theirs"))
        base = item.manifests.get("1")
        if self.chosen is None:
            if not self.pairs:
                return pick(item.path, tips, base)
            return Question(item.path, tips, base, choose(git, None, self.pairs).plain(item.path))
        merge = self.chosen.merge
        assert merge
        with git.blobs() as blobs:
            trees = Trees(git, blobs)
            means = (self.chosen.whole(item.path), *based(trees, item.path, self.chosen, base))
            return ask(trees, item.path, means, list(zip(merge.experts, tips, strict=True)))

    def remember(self, merged: Merged) -> None:
        """Record the merge for its commit, now that its result is staged."""
        if self.chosen is None:
            return
        git = self.repository.git
        pending.write(git, self.chosen.record(merged.path), self.heads, {merged.path: _blob(git, merged)})
        announce(git)


def conflict(repository: Repository, pairs: Pairs) -> Conflict:
    """What is going on: a merge of two branches is made by the configured strategy; what picks, applies a change.

    Raises ``UsageError`` for options that make no sense.
    """
    found = going_on(repository)
    if found is None or len(found[0].remotes) != 1:
        said = {key for key, _ in pairs} & {"strategy", "method", "recipe"}
        picks = [] if said or not pairs or found else [("strategy", "apply")]
        return Conflict(repository, None, (), [*picks, *pairs] or ([("strategy", "average")] if found else []))
    merge, _ = found
    return Conflict(
        repository, choose(repository.git, merge, pairs), (merge.ours.commit, merge.remotes[0].commit), pairs
    )


def going_on(repository: Repository) -> tuple[Merge, list[str]] | None:
    """The merge that waits for its commit, and all of its best common ancestors; None outside of one."""
    git = repository.git
    commits = pending.merging(git)
    if not commits:
        return None
    option = "--all" if len(commits) == 1 else "--octopus"
    bases = git.run("merge-base", option, "HEAD", *commits, check=False).stdout.decode().split()
    return Merge(repository, [Head(commit, _name(git, commit)) for commit in commits], bases), bases


def announce(git: Git) -> None:
    """Have what is kept of a merge in its message, where no hook puts it there: that one knows what is committed."""
    if state(git, MESSAGE) != "installed":
        finish(git)


def _name(git: Git, commit: str) -> str:
    """The branch that is merged, as its name is nowhere but in the message."""
    names = git.text("for-each-ref", "--points-at", commit, "--format=%(refname:short)", "refs/heads", "refs/remotes")
    return names.partition("\n")[0] or commit[:12]


def whole(item: Stages, side: str) -> Merged:
    """One side's version of a file as it is. Raises ``ThetaError`` if it has none."""
    return Merged(item.path, item.side(side))


# -- putting an end to it ----------------------------------------------------------------------------------------------


def changed(repository: Repository, item: Stages) -> bool:
    """Whether somebody has worked on the file in the worktree since git left it there."""
    absolute = repository.absolute(item.path)
    if not os.path.lexists(absolute):
        return False
    if os.path.islink(absolute) or not os.path.isfile(absolute):
        return True
    oid = repository.git.text("hash-object", "-w", "--", item.path)
    with repository.git.blobs() as blobs:
        text = read_manifest(blobs, oid)
    return text is None or loads(text).digest not in {manifest.digest for manifest in item.manifests.values()}


def _blob(git: Git, merged: Merged) -> str:
    """The blob that the merged manifest is, written."""
    return git.run("hash-object", "-w", "--stdin", stdin=merged.manifest.dumps()).stdout.decode().strip()


def settle(repository: Repository, results: Sequence[tuple[Stages, Merged]]) -> list[Outcome]:
    """Stage the results and write the files. What cannot be written is left as a stub, and named."""
    git, rows = repository.git, []
    for item, merged in results:
        rows += [f"0 {_NO_OID}\t{item.path}", f"{item.mode} {_blob(git, merged)} 0\t{item.path}"]
    git.run("update-index", "-z", "--index-info", stdin=os.fsencode("\0".join(rows) + "\0"))
    paths = [item.path for item, _ in results]
    names = os.fsencode("\0".join(paths) + "\0")
    git.with_environment(**{SKIP: "1"}).run(*STUBS, "checkout-index", "-f", "-u", "-z", "--stdin", stdin=names)
    if skips_smudge(repository):
        return []
    models = [model for model in repository.models() if model.path in set(paths)]
    old = {merged.path: version for _, merged in results if (version := merged.version())}
    return materialise(repository, models, Means(old))

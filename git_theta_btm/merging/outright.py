"""Outright: conflicts that end with one side's version of a model, or with what a person made, noted for the commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..repository import Repository
from . import pending
from .choosing import choose
from .heads import Merge, Trees
from .recipe import Recipe
from .records import NONE, ByHand, Expert, Record, Taken
from .unmerged import SIDES, Stages, announce, going_on


@dataclass(frozen=True)
class _Sources:
    """The commits that each side of a conflict may be from."""

    trees: Trees
    merge: Merge
    bases: Sequence[str]

    def origin(self, item: Stages, side: str) -> str | None:
        """The commit that has this side's version; None for one that git made, of several bases or heads."""
        theirs = [head.commit for head in self.merge.remotes]
        commits = {"ours": [self.merge.ours.commit, *theirs], "theirs": theirs, "base": self.bases}[side]
        _, oid = item.rows[SIDES[side]]
        places = ((commit, self.trees.find(commit, item.path, [oid])) for commit in commits)
        return next((commit for commit, place in places if place and place.oid == oid), None)


def remember(repository: Repository, items: Sequence[Stages], side: str | None = None) -> None:
    """Record what is staged now for these files, if a merge is going on: a side's version, or what a person made.

    Raises ``ThetaError`` if a commit that is merged has a record that cannot be read.
    """
    found = going_on(repository)
    if found is None:
        return  # of a pick or a rebase nothing is recorded
    merge, bases = found
    git = repository.git
    masses = choose(git, merge, ()).masses
    experts = tuple(Expert(head.commit, head.name, mass) for head, mass in zip(merge.experts, masses, strict=True))
    whole: dict[str, Taken | ByHand] = {}
    with git.blobs() as blobs:
        sources = _Sources(Trees(git, blobs), merge, bases)
        staged = {item.path: oid for item in items if (oid := _staged(repository, item.path))}
        for item in items:
            manifest = sources.trees.manifest(staged[item.path]) if item.path in staged else None
            if manifest:
                commit = sources.origin(item, side) if side else None
                whole[item.path] = Taken(commit) if commit else ByHand(manifest.digest)
    recipe = Recipe(NONE, weights=(1.0,) * len(experts))
    heads = [merge.ours.commit, *(head.commit for head in merge.remotes)]
    pending.write(git, Record(recipe, experts, merge.base, whole=whole), heads, {path: staged[path] for path in whole})
    announce(git)


def _staged(repository: Repository, path: str) -> str | None:
    """The blob that will be committed at a path."""
    rows = repository.git.fields("ls-files", "-s", "-z", "--", f":(top,literal){path}")
    words = [row.partition("\t")[0].split() for row in rows]
    return words[0][1] if len(words) == 1 and words[0][2] == "0" else None

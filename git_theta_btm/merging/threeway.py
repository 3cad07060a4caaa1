"""A three-way merge of one model: what the driver does with the three files that git hands it, from their bytes alone."""

from __future__ import annotations

import os

from ..errors import MergeConflict
from ..manifest import Manifest, is_manifest, loads
from ..repository import Repository
from . import pending
from .asking import question
from .caller import merges
from .choosing import choose
from .filing import Desk, Question
from .heads import Head, Merge, Trees
from .recipe import Recipe

_PREFIX = "GITHEAD_"


def _question(repository: Repository, path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> Question:
    """A merge of experts, of whose names and history no more is known than git tells its children."""
    remotes = [Head(name.removeprefix(_PREFIX), os.environ[name]) for name in os.environ if name.startswith(_PREFIX)]
    if len(remotes) != 1:
        return Question(path, tips, base, choose(repository.git, None, ()).plain(path))
    bases = repository.git.run("merge-base", "--all", "HEAD", remotes[0].commit, check=False).stdout.decode().split()
    merge = Merge(repository, remotes, bases)
    chosen = choose(repository.git, merge, ())
    with repository.git.blobs() as blobs:
        trees = Trees(repository.git, blobs)
        ancestor = Head(bases[0], "the base") if base and bases else None
        heads = [merge.ours, *remotes]
        found = question(trees, path, (chosen.whole(path), base, ancestor), list(zip(heads, tips, strict=True)))
    pending.write(repository.git, chosen.record(path), [merge.ours.commit, remotes[0].commit])
    return found


def pick(_: Repository, path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> Question:
    """A change that is applied: ours and what theirs did since the base. Whoever changed which parameters there are has
    the say about that; if both did, it is a conflict."""
    ours, theirs = tips
    if base is None or _names(ours) == _names(theirs):
        return Question(path, tips, base, Recipe("apply"))
    if _names(ours) == _names(base):
        return Question(path, (theirs, ours), base, Recipe("apply", missing="any"))
    if _names(theirs) == _names(base):
        return Question(path, tips, base, Recipe("apply", missing="any"))
    return Question(path, tips, base, Recipe("apply"))


def _names(manifest: Manifest) -> list[tuple[str, object]]:
    return [(entry.name, entry.tensor) for entry in manifest.entries]



"""Replaying: a merge that ``git rebase --rebase-merges`` repeats, in the way in which it was made first.

Git carries the old message along, and with it a record: of commits that others stand for now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import MergeConflict, ThetaError
from ..git import Git
from ..manifest import Manifest, spell
from ..repository import Repository
from . import pending, trailers
from .asking import Setting, of_sides
from .belonging import belongs, parents_of
from .caller import repeated
from .filing import Question
from .heads import Head, Merge, Trees, commit_of, common_ancestor
from .records import Record


@dataclass(frozen=True, slots=True)
class Replay:
    """A merge that is repeated: what is merged into HEAD, and the record of the first time with the commits of now."""

    remotes: tuple[Head, ...] = ()
    record: Record | None = None

    def question(self, repository: Repository, merge: Merge, path: str, tips: tuple[Manifest, ...]) -> Question:
        """The merge of one file as it was made first. Raises ``MergeConflict`` if no recipe made it."""
        record = self.record
        assert record
        if path in record.whole:
            why = "in the merge that is repeated nothing computed it: '--ours', '--theirs' or '--take FILE' ends that"
            raise MergeConflict(f"{spell(path)}: {why}")
        git = repository.git
        known = [git.run("hash-object", "--stdin", stdin=tip.dumps()).stdout.decode().strip() for tip in tips]
        experts = [Head(expert.commit, expert.name) for expert in record.experts]
        setting = Setting(experts, None if merge.forked else merge.base, record.base_of(path), record.of(path))
        with git.blobs() as blobs:
            return of_sides(Trees(git, blobs), path, setting, known)


def replay(git: Git) -> Replay:
    """The merge that a rebase repeats; one without commits if none does, and without a record if it cannot be told how
    it was made."""
    first, label = repeated()
    commits = pending.merging(git) if label else []
    if len(commits) != 1:
        return Replay()
    remotes = (Head(commits[0], label),)
    try:
        return Replay(remotes, _again(git, commit_of(git, first), commits[0]) if first else None)
    except ThetaError:  # a record that cannot be read, or a commit that is gone
        return Replay(remotes)


def _again(git: Git, first: str, remote: str) -> Record | None:
    """The record of the first merge, with new commits in the place of the old; a base that Git found is found anew."""
    record, before = trailers.loads(git.text("log", "-1", "--format=%B", first)), parents_of(git, first)
    if record is None or len(before) != 2 or len(record.experts) != 2 or not belongs(git, record, first):
        return None
    now = [commit_of(git, "HEAD"), remote]
    places = dict(zip(before, now, strict=True))
    old, new = common_ancestor(git, before), common_ancestor(git, now)
    return replace(
        record,
        experts=tuple(replace(expert, commit=places[expert.commit]) for expert in record.experts),
        base=new if record.base == old else record.base,
        bases={path: new if base == old else base for path, base in record.bases.items()},
    )

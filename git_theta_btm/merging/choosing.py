"""Choosing: the recipe of one merge, from all places that say something about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import MergeConflict, UsageError
from ..git import Git
from ..manifest import Manifest, spell
from . import pending, trailers
from .belonging import belongs
from .configured import general, settings
from .drafts import Draft, resolve
from .factors import check_bound
from .heads import Head, Merge, Trees, changes_a_model, commit_of
from .reading import from_pairs
from .recipe import Recipe
from .records import Expert, Record, record
from .resolve import Rows
from .vocabulary import rows

_OWN = ("device", "statistics", "tokenizer")  # what concerns no recipe file


@dataclass(frozen=True)
class Chosen:
    """What is said about a merge; of which heads, if that is known."""

    git: Git
    merge: Merge | None
    draft: Draft
    device: str = ""
    statistics: str = ""
    tokenizer: str = ""

    def plain(self, path: str) -> Recipe:
        """The recipe of a merge of heads that have no names. Raises ``UsageError``."""
        found = resolve(settings(self.git, path, self.draft), ["ours", "theirs"])
        return self._with_files(found)

    def whole(self, path: str) -> Recipe:
        """The recipe for all heads, the weight of each written out. Raises ``UsageError``."""
        assert self.merge
        found = resolve(settings(self.git, path, self.draft), [head.name for head in self.merge.experts])
        found = self._with_files(found.weighing(self.masses))
        return replace(found, weights=found.weights or (1.0,) * len(self.merge.experts))

    def _with_files(self, recipe: Recipe) -> Recipe:
        given = replace(recipe, statistics=self.statistics, tokenizer=self.tokenizer)
        return replace(given, vocabulary="ours") if self.tokenizer else given

    @cached_property
    def masses(self) -> list[float]:
        """How many experts each head holds."""
        assert self.merge
        return [mass(self.git, head) for head in self.merge.experts]

    @cached_property
    def base(self) -> str | None:
        """The commit that task vectors start from: the one that was named, else the common ancestor."""
        assert self.merge
        return commit_of(self.git, self.named_base) if self.named_base else self.merge.base

    @cached_property
    def named_base(self) -> str | None:
        """What the base was called, by whoever asks for the merge or in Git's configuration."""
        return self.draft.base or general(self.git).base

    def record(self, path: str) -> Record:
        """What the commit's message will say."""
        assert self.merge
        experts = [
            Expert(head.commit, head.name, mass) for head, mass in zip(self.merge.experts, self.masses, strict=True)
        ]
        return record(self.whole(path), experts, self.base)


def choose(git: Git, merge: Merge | None, pairs: Iterable[tuple[str, str]]) -> Chosen:
    """What options, as ``-X`` has them, and git's configuration say.

    Raises ``UsageError``, and ``MergeConflict`` if a merge that begins would leave an expert's adapter behind.
    """
    if merge and not pending.merging(git):
        check_bound(git, merge)
    pairs = list(pairs)
    own = {key: value for key, value in pairs if key in _OWN}
    draft = from_pairs(pair for pair in pairs if pair[0] not in _OWN)
    return Chosen(git, merge, draft, **own)


def mass(git: Git, head: Head) -> float:
    """How many experts a head's model holds: as many as the last merge on the way to it was made of, unless the model
    was trained since, or the record is of another commit; then it is one itself."""
    words = ("log", "-1", "--first-parent", "--format=%H%n%B", "--grep=^Theta-Merge: ", head.commit, "--")
    commit, _, message = git.text(*words).partition("\n")
    found = trailers.loads(message) if commit else None
    if found is None or not belongs(git, found, commit):
        return 1.0
    return 1.0 if commit != head.commit and changes_a_model(git, commit, head.commit) else found.mass


def part(recipe: Recipe, places: Sequence[int]) -> Recipe:
    """The recipe for some of the heads."""
    weights = tuple(recipe.weights[place] for place in places)
    rules = tuple(
        replace(rule, weights=tuple(rule.weights[place] for place in places) if rule.weights else ())
        for rule in recipe.rules
    )
    return replace(recipe, weights=weights, rules=rules)


def statistics(trees: Trees, recipe: Recipe, heads: Sequence[Head]) -> tuple[Manifest, ...]:
    """The file of statistics of each head; none if the recipe names none. Raises ``UsageError`` for one that is not
    there."""
    if not recipe.statistics:
        return ()
    found = []
    for head in heads:
        oid = trees.entry(head.commit, recipe.statistics)
        manifest = trees.manifest(oid) if oid else None
        if manifest is None:
            raise UsageError(f"{head.name} has no model file {recipe.statistics} with statistics")
        found.append(manifest)
    return tuple(found)


def aligned(trees: Trees, recipe: Recipe, heads: Sequence[Head], sides: Sequence[Manifest | None]) -> dict[int, Rows]:
    """Which rows of each side's tables are the first one's, by their tokenizers. ``sides`` belong to the heads; one
    more, the base, has no tokenizer of its own to go by unless it is the last head's.

    Raises ``MergeConflict`` for a tokenizer that is not there, and ``ThetaError`` for one that is not understood.
    """
    if not recipe.tokenizer:
        return {}
    texts = []
    for head in heads:
        oid = trees.entry(head.commit, recipe.tokenizer)
        text = trees.blobs.read(oid) if oid else None
        if text is None:
            raise MergeConflict(f"{head.name} has no file {spell(recipe.tokenizer)}")
        texts.append(text)
    found = {}
    for place, (text, side) in enumerate(zip(texts, sides, strict=True)):
        if place and side and sides[0] and (heights := _heights(sides[0], side)):
            found[place] = rows(texts[0], text, heights)
    return found


def _heights(ours: Manifest, theirs: Manifest) -> tuple[int, int] | None:
    """The numbers of rows of tables that differ in nothing else. Raises ``MergeConflict`` if there are several."""
    shapes = {entry.name: entry.tensor.shape for entry in theirs.entries}
    found = set()
    for entry in ours.entries:
        shape, other = entry.tensor.shape, shapes.get(entry.name, ())
        if shape and other and shape[1:] == other[1:] and shape != other:
            found.add((shape[0], other[0]))
    if len(found) > 1:
        raise MergeConflict("tables of several heights differ: one tokenizer cannot align them all")
    return found.pop() if found else None

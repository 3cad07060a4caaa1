"""Asking: from the heads of a merge to the question of what one model file becomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import UsageError
from ..manifest import Manifest
from ..merges import load
from .choosing import Chosen, aligned, part, statistics
from .factors import check_factors
from .filing import Question
from .heads import Head, Trees
from .recipe import Recipe

Means: TypeAlias = tuple[Recipe, Manifest | None, Head | None]
Sides: TypeAlias = Sequence[tuple[Head, Manifest]]


@dataclass(frozen=True, slots=True)
class Setting:
    """The experts of a merge, the common ancestor that git found, the base of task vectors, and how they are merged:
    the recipe has one weight for each expert."""

    experts: Sequence[Head]
    ancestor: str | None
    base: str | None
    recipe: Recipe


def ask(trees: Trees, path: str, known: Iterable[str], chosen: Chosen) -> Question:
    """The merge of a file that more than one head has changed; ``known`` are blobs that it may be under another name.

    Raises ``UsageError`` for a recipe that makes no sense, ``MergeConflict`` for factors of adapters of which no rule
    speaks, and ``ManifestError`` for a broken manifest.
    """
    assert chosen.merge
    setting = Setting(chosen.merge.experts, chosen.merge.base, chosen.base, chosen.whole(path))
    return question(trees, path, *_settled(trees, path, setting, list(known)))


def of_sides(trees: Trees, path: str, setting: Setting, known: Sequence[str]) -> Question:
    """The same from what was settled before: what was merged once is not questioned."""
    return _question(trees, path, *_settled(trees, path, setting, known))


def _settled(trees: Trees, path: str, setting: Setting, known: Sequence[str]) -> tuple[Means, Sides]:
    sides = trees.sides(setting.experts, setting.ancestor, path, known)
    oid = trees.before(setting.base, setting.experts, path, known)
    base = trees.manifest(oid) if oid else None
    recipe = part(setting.recipe, [setting.experts.index(side.head) for side in sides])
    ancestor = Head(setting.base, "the base") if base and setting.base else None
    return (recipe, base, ancestor), [(side.head, side.manifest) for side in sides]


def based(trees: Trees, path: str, chosen: Chosen, given: Manifest | None) -> tuple[Manifest | None, Head | None]:
    """What a file was at the base of a merge, and where that is. ``given`` is what git has for it, which is another
    version if the base was named, or if there are several, of which git takes what they come from."""
    merge = chosen.merge
    assert merge
    base = given
    if chosen.base and (chosen.named_base or merge.forked):
        oid = trees.before(chosen.base, [merge.ours, *merge.remotes], path)
        base = trees.manifest(oid) if oid else None
    return base, Head(chosen.base, "the base") if base and chosen.base else None


def question(trees: Trees, path: str, means: Means, sides: Sides) -> Question:
    """The same from what each head has, and with what they are merged: the recipe, the base, and where that is."""
    _check_statistics(means[0])
    found = _question(trees, path, means, sides)
    check_factors(trees, found, [head for head, _ in sides])
    return found


def _check_statistics(recipe: Recipe) -> None:
    """Raise ``UsageError`` for a strategy that asks for statistics, and gets none: it would be another strategy."""
    for name in (recipe.strategy, *(rule.strategy for rule in recipe.rules)):
        if name and load(name).statistics and not recipe.statistics:
            raise UsageError(f"{name} needs a file of statistics of each expert: --statistics FILE")


def _question(trees: Trees, path: str, means: Means, sides: Sides) -> Question:
    recipe, base, ancestor = means
    heads, tips = [head for head, _ in sides], tuple(manifest for _, manifest in sides)
    found = aligned(trees, recipe, [*heads, *([ancestor] if ancestor else [])], [*tips, *([base] if ancestor else [])])
    rows = {(-1 if place == len(tips) else place): row for place, row in found.items()}
    return Question(path, tips, base, recipe, statistics(trees, recipe, heads), rows or None)

"""Asking: from the heads of a merge to the question of what one model file becomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..manifest import Manifest
from .choosing import Chosen, aligned, part, statistics
from .filing import Question
from .heads import Head, Trees
from .recipe import Recipe


def ask(trees: Trees, path: str, known: Iterable[str], chosen: Chosen) -> Question:
    """The merge of a file that more than one head has changed; ``known`` are blobs that it may be under another name.

    Raises ``UsageError`` for a recipe that makes no sense, and ``ManifestError`` for a broken manifest.
    """
    assert chosen.merge
    experts = chosen.merge.experts
    sides = trees.sides(experts, chosen.merge.base, path, known)
    oid = trees.find(chosen.base, path) if chosen.base else None
    base = trees.manifest(oid) if oid else None
    heads = [side.head for side in sides]
    recipe = part(chosen.whole(path), [experts.index(head) for head in heads])
    ancestor = Head(chosen.base, "the base") if base and chosen.base else None
    return question(trees, path, (recipe, base, ancestor), [(side.head, side.manifest) for side in sides])


def question(
    trees: Trees,
    path: str,
    means: tuple[Recipe, Manifest | None, Head | None],
    sides: Sequence[tuple[Head, Manifest]],
) -> Question:
    """The same from what each head has, and with what they are merged: the recipe, the base, and where that is."""
    recipe, base, ancestor = means
    heads, tips = [head for head, _ in sides], tuple(manifest for _, manifest in sides)
    found = aligned(trees, recipe, [*heads, *([ancestor] if ancestor else [])], [*tips, *([base] if ancestor else [])])
    rows = {(-1 if place == len(tips) else place): row for place, row in found.items()}
    return Question(path, tips, base, recipe, statistics(trees, recipe, heads), rows or None)

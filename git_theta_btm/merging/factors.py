"""Factors: what a merge must not do to adapters.

The change that a LoRA adapter makes is the product of two factors. The mean of the one factor times the mean of the
other is not the mean of the products, and has cross terms that no expert learned; and an adapter beside a model that
another expert has changed means nothing any more.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from ..adapters.files import CONFIG, WEIGHTS, bases, parse_config
from ..errors import MergeConflict, ThetaError
from ..git import Git
from ..manifest import Manifest, spell
from .configured import attributed
from .filing import Question
from .heads import Head, Merge, Trees

_PAIR = ("lora_A", "lora_B")
_EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
_MOST = 1 << 20  # bytes of a configuration


def check_factors(trees: Trees, question: Question, heads: Sequence[Head]) -> None:
    """Raise ``MergeConflict`` if both factors of a module would be merged, unless a rule or the path's attribute says
    how: then somebody wants that. What all heads have applied is history, and nothing depends on it."""
    if not any(_module(entry.name) for entry in question.tips[0].entries):
        return
    names = [name for name in _computed(question) if not any(rule.matches(name) for rule in question.recipe.rules)]
    if not _products(names) or attributed(trees.git, question.path).strategy:
        return
    config = os.path.join(os.path.dirname(question.path), CONFIG)
    if all(_applied(trees, head, config) for head in heads):
        return
    raise MergeConflict(
        f"{spell(question.path)}: factors of LoRA cannot be merged one by one, for only their product was learned: "
        f"{_way(question.path, heads)}--rule '*lora_* {question.recipe.strategy}' does it all the same"
    )


def _computed(question: Question) -> list[str]:
    """The parameters that would be computed: all, if it is of other ranks or modules that they cannot be."""
    try:
        return [step.name for step in question.steps if step.choice]
    except MergeConflict:
        return [entry.name for entry in question.tips[0].entries]


def _way(path: str, heads: Sequence[Head]) -> str:
    """How to merge an adapter exactly, if it is one as PEFT saves it."""
    folder, name = os.path.split(path)
    words = " ".join(shlex.quote(f"{head.name}:{folder}") for head in heads)
    return f"'git theta merge-adapters {words} --out DIR' adds up the products; " if name == WEIGHTS else ""


def _module(name: str) -> tuple[str, str] | None:
    """The module that a factor is of, and which of the two it is; None for anything else."""
    words = name.split(".")
    for pair in (_PAIR, _EMBEDDING):
        for place, role in enumerate(pair):
            if role in words:
                return ".".join("" if word == role else word for word in words), "AB"[place]
    return None


def _products(names: Iterable[str]) -> bool:
    """Whether both factors of one module are among these: with one of them the same everywhere, a mean is exact."""
    found = [factor for name in names if (factor := _module(name))]
    return len({module for module, _ in found}) < len(set(found))


def _applied(trees: Trees, head: Head, path: str) -> bool:
    """Whether the model that an adapter is for is no longer there; False for one that does not say which it is."""
    stated, _ = _stated(trees, head, path)
    return bool(stated) and not any(manifest.digest in stated for _, manifest in _models(trees, head))


# -- adapters that are bound to a model --------------------------------------------------------------------------------


def check_bound(git: Git, merge: Merge) -> None:
    """Raise ``MergeConflict`` if an expert is an adapter of a model that another expert has changed: the merge would
    leave out what it has learned."""
    bound = [(head, paths) for head in merge.experts if (paths := _adapters(git, head.commit))]
    if not bound:
        return
    with git.blobs() as blobs:
        trees = Trees(git, blobs)
        for head, paths in bound:
            for path in paths:
                _check(trees, merge, head, path)


def _adapters(git: Git, commit: str) -> list[str]:
    """The configurations of adapters in a commit."""
    names = git.fields("ls-tree", "-r", "-z", "--full-tree", "--name-only", commit)
    return [name for name in names if os.path.basename(name) == CONFIG]


def _check(trees: Trees, merge: Merge, head: Head, path: str) -> None:
    stated, kind = _stated(trees, head, path)
    if not stated:
        return
    for model, manifest in _models(trees, head):
        if manifest.digest not in stated:
            continue
        for other in merge.experts:
            if other != head and _changed(trees, merge, other, model, stated):
                folder = f"{os.path.dirname(path) or '.'}/"
                raise MergeConflict(
                    f"{head.name} has an adapter in {spell(folder)} that is not applied to {spell(model)}, which "
                    f"{other.name} changed: 'git switch {shlex.quote(head.name)}', 'git theta add "
                    f"{shlex.quote(model)} --update {kind} --from {shlex.quote(folder)}', and 'git commit' first"
                )


def _stated(trees: Trees, head: Head, path: str) -> tuple[Sequence[str], str]:
    """The versions that an adapter says it is for, and what 'git theta add --update' calls its kind."""
    oid = trees.entry(head.commit, path)
    text = trees.blobs.read(oid, limit=_MOST) if oid else None
    config: Mapping[str, object] = {}
    with suppress(ThetaError):  # a file of that name which is something else
        config = parse_config(path, text or b"")
        return bases(os.path.dirname(path), config), "ia3" if config.get("peft_type") == "IA3" else "low-rank"
    return (), ""


def _models(trees: Trees, head: Head) -> Iterator[tuple[str, Manifest]]:
    for path, oid in trees.models(head.commit).items():
        if manifest := trees.manifest(oid):
            yield path, manifest


def _changed(trees: Trees, merge: Merge, other: Head, path: str, stated: Sequence[str]) -> bool:
    """Whether another expert has another version of the model, and not only that of the common ancestor."""
    oid = trees.entry(other.commit, path)
    if not oid or (merge.base and oid == trees.entry(merge.base, path)):
        return False
    manifest = trees.manifest(oid)
    return manifest is not None and manifest.digest not in stated

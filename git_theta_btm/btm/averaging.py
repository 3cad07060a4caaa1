"""Averaging: checkpoint files become one, by name and not by position, without a repository.

What the average scripts of Branch-Train-Merge (arXiv:2208.03306) and of MDEL do, and what their block merges do layer
by layer. Everything that is no tensor of the model (arguments, optimizer state) is the first file's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from glob import escape
from math import fsum, isclose, isfinite

from .. import formats
from ..api import Checkpoint
from ..errors import ThetaError, UsageError
from ..merging.computing import Device
from ..merging.drafts import Draft, DraftRule, check_globs, resolve
from ..merging.inputs import Models
from ..merging.producing import compute
from ..merging.recipe import Gradient, Recipe, Rule
from ..merging.resolve import Step, check, plan
from ..parallel import keep_freed_memory
from ..remaking import new_file
from ..rewrite import rewrite
from ..source import Source
from .layers import layer, prefix
from .opening import Opened, open_model

_SUMS = ("average", "linear")
_PLACE = re.compile(r"(?:(.+)\.)?(\d{1,9})(?:(-)(\d{0,9}))?")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be averaged: files or commits, how, and the file to write. ``layers`` are weights of layers, as
    ``h.0-3=.2,h.4-=.8``; ``overwrite`` lets ``out`` be replaced."""

    words: tuple[str, ...]
    out: str
    draft: Draft = Draft()
    layers: str = ""
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it: parameters that were computed, that were taken from one file as they are, and the file's size
    in bytes. ``shares`` are the weights divided by their sum, if that was not 1."""

    computed: int
    taken: int
    size: int
    shares: tuple[float, ...] = ()


def average(order: Order, progress: Callable[[int, int], None] = lambda done, total: None) -> Made:
    """Write the average to ``order.out``, whole or not at all; memory is bounded by a few tiles of each model.

    Raises ``UsageError`` for weights that do not fit, ``MergeConflict`` naming parameters that cannot be merged, and
    ``ThetaError`` if a file changes meanwhile.
    """
    with ExitStack() as stack:
        tips = [open_model(word, stack) for word in order.words]
        base = open_model(order.draft.base, stack) if order.draft.base else None
        recipe = _recipe(order, tips)
        manifests = [tip.checkpoint.manifest for tip in tips]
        steps = [_settled(step) for step in plan(manifests, base.checkpoint.manifest if base else None, recipe)]
        for opened in (*tips, *([base] if base else [])):
            opened.verify()
        models = Models(tuple(tip.checkpoint for tip in tips), base.checkpoint if base else None)
        _check_free(order.out, overwrite=order.overwrite)
        with new_file(order.out) as out:
            _write(models, steps, tips[0].file, out, progress)
            for opened in (*tips, *([base] if base else [])):
                opened.check_unchanged()
    computed = sum(step.choice is not None for step in steps)
    return Made(computed, len(steps) - computed, tips[0].file.size, _shares(recipe))


def _recipe(order: Order, tips: Sequence[Opened]) -> Recipe:
    names = list(tips[0].checkpoint)
    rules = tuple(_layer_rules(order.layers, names, len(tips))) if order.layers else ()
    draft = replace(order.draft, rules=(*order.draft.rules, *rules))
    check_globs(draft, names)
    recipe = resolve(draft, order.words)
    check(recipe)
    return recipe


def _layer_rules(text: str, names: Sequence[str], count: int) -> Iterator[DraftRule]:
    """``h.0-3=.2`` for two models, ``h.4-=.2/.3/.5`` for three. Raises ``UsageError``."""
    for part in text.split(","):
        place, sign, numbers = part.strip().partition("=")
        found = _PLACE.fullmatch(place)
        if not sign or not found:
            raise UsageError(f"{part[:80]!r} has to be like h.0-3=.2")
        first, last = int(found[2]), _last(found)
        inside = [name for name in names if _within(name, found[1], first, last)]
        if not inside:
            raise UsageError(f"no parameter is in the layers {place[:80]!r}")
        globs = {escape(name) if prefix(name) == name else f"{escape(prefix(name))}[./]*" for name in inside}
        yield DraftRule(Rule(tuple(sorted(globs))), _layer_weights(numbers, count))


def _last(found: re.Match[str]) -> float:
    if not found[3]:
        return int(found[2])
    return int(found[4]) if found[4] else float("inf")


def _within(name: str, stem: str | None, first: int, last: float) -> bool:
    place = layer(name)
    if place is None or not first <= place[1] <= last:
        return False
    return stem is None or f".{place[0]}".endswith(f".{stem}")


def _layer_weights(text: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split("/")))
    except ValueError:
        raise UsageError(f"{text[:80]!r} is no weight") from None
    if len(numbers) == 1 and count == 2:
        numbers = (numbers[0], 1 - numbers[0])
    if len(numbers) != count or not all(map(isfinite, numbers)):
        raise UsageError(f"{text[:80]!r} has to be {count} numbers, as {'/'.join([f'{1 / count:.2g}'] * count)}")
    return numbers


def _settled(step: Step) -> Step:
    """What is one model alone is that model's to the last bit: infinities, minus zeros and payloads of NaN included."""
    if step.choice is None or step.choice.name not in _SUMS:
        return step
    counted = [(tip, weight) for tip, weight in zip(step.tips, step.choice.weights, strict=True) if weight]
    if len(counted) == 1 and (step.choice.name == "average" or counted[0][1] == 1):
        return Step(step.name, take=counted[0][0])
    return step


def _shares(recipe: Recipe) -> tuple[float, ...]:
    weights = [weight for weight in recipe.weights if not isinstance(weight, Gradient)]
    whole = fsum(weights)
    if recipe.strategy != "average" or len(weights) < len(recipe.weights) or not weights or not whole:
        return ()
    return () if isclose(whole, 1, rel_tol=1e-6) else tuple(weight / whole for weight in weights)


def _write(models: Models, steps: Iterable[Step], file: Source, out: int, progress: Callable[[int, int], None]) -> None:
    keep_freed_memory()
    new = compute(models, list(steps), Device())
    new |= {name: models.source(0, name) for name in _beside(models.tips[0], file, new)}
    done = 0

    def wrote(size: int) -> None:
        nonlocal done
        done += size
        progress(done, file.size)

    rewrite(file, new, out, wrote)


def _beside(first: Checkpoint, file: Source, new: Mapping[str, Source]) -> Iterator[str]:
    """Parameters that stay as they are in memory that others share, which may not stay: ``rewrite`` compares them."""
    located = sorted((item for item in formats.locate(file)[1] if item.tensor.nbytes), key=lambda item: item.offset)
    runs: list[list[str]] = []
    end = 0
    for item in located:
        if item.offset >= end:
            runs.append([])
        runs[-1].append(item.name)
        end = max(end, item.end)
    yield from (name for run in runs if len(run) > 1 for name in run if name not in new and name in first)


def _check_free(path: str, *, overwrite: bool) -> None:
    if os.path.isdir(path) or (os.path.lexists(path) and not overwrite):
        raise ThetaError(f"{path} exists already: --force replaces a file")

"""Resolve: what becomes of each parameter when models are merged, decided from their manifests alone.

Digests come first: what all tips agree on is never read. All that no rule covers is reported before anything is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import MergeConflict, UsageError
from ..floats import REAL, is_float
from ..manifest import Entry, Manifest, spell
from ..merges import load
from .recipe import Choice, Recipe, depths

BASE = -1  # the place of the base, where a tip's is a number from 0
_SHOWN = 3  # conflicts that a message names


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one parameter: the tensor of tip ``take`` as it is, or what ``choice`` makes of ``tips``."""

    name: str
    take: int | None = None
    choice: Choice | None = None
    tips: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one tip's tables that stand for the first tip's rows, by number; None for one that it has not."""

    count: int  # of rows in this tip's tables
    places: tuple[int | None, ...]


def plan(
    tips: Sequence[Manifest], base: Manifest | None, recipe: Recipe, rows: Mapping[int, Rows] | None = None
) -> list[Step]:
    """One step for each parameter of the first tip, which lends its layout to the result.

    Raises ``MergeConflict`` naming parameters that cannot be merged, and ``UsageError`` for a recipe that makes no
    sense.
    """
    return list(_Planner(tips, base, recipe, rows or {}).steps())


class _Planner:
    def __init__(
        self, tips: Sequence[Manifest], base: Manifest | None, recipe: Recipe, rows: Mapping[int, Rows]
    ) -> None:
        self._digests = [tip.digest for tip in tips]
        self._sides = [{entry.name: entry for entry in tip.entries} for tip in tips]
        self._base = {entry.name: entry for entry in base.entries} if base else None
        self._recipe, self._rows = recipe, rows
        self._depths = depths(self._sides[0])

    def steps(self) -> Iterator[Step]:
        problems = list(self._beyond())
        found = []
        for name in self._sides[0]:
            try:
                found.append(self._step(name))
            except MergeConflict as error:
                problems.append(f"{spell(name)} {error}")
        if problems:
            more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
            raise MergeConflict("; ".join(problems[:_SHOWN]) + more)
        yield from found

    def _beyond(self) -> Iterator[str]:
        """Parameters that the first tip has not."""
        if self._recipe.missing != "error":
            return
        ours = self._sides[0]
        names = dict.fromkeys(name for side in self._sides[1:] for name in side if name not in ours)
        yield from (
            f"{spell(name)} is not in the first model: put one first that has it, or leave it out by --missing ours"
            for name in names
            if not self._recipe.excluded(name)
        )

    def _step(self, name: str) -> Step:
        if self._recipe.excluded(name):
            return Step(name, take=self._kept(name))
        having = [index for index, side in enumerate(self._sides) if name in side]
        if len(having) < len(self._sides):
            if self._recipe.missing == "error":
                raise MergeConflict("is not in all models: --missing ours keeps it, --missing any merges where it is")
            having = [0] if self._recipe.missing == "ours" else having
        choice = self._recipe.choose(name, len(self._sides), self._depths.get(name, 0.0))
        return self._decide(name, self._narrowed(choice, having), having)

    def _kept(self, name: str) -> int:
        """Whose an excluded parameter stays: the first tip's, unless changes are applied, and another alone has one."""
        base = self._base.get(name) if self._base else None
        if base is None or not load(self._recipe.strategy).one_sided or not _same(self._sides[0][name], base):
            return 0
        others = [(place, side[name]) for place, side in enumerate(self._sides) if name in side]
        changed = (place for place, entry in others if entry.tensor == base.tensor and entry.digest != base.digest)
        return next(changed, 0)

    def _narrowed(self, choice: Choice, having: Sequence[int]) -> Choice:
        return Choice(choice.name, choice.strategy, tuple(choice.weights[index] for index in having))

    def _decide(self, name: str, choice: Choice, having: Sequence[int]) -> Step:
        entries = [self._sides[index][name] for index in having]
        base = self._base.get(name) if self._base is not None else None
        same = all(_same(entry, entries[0]) for entry in entries[1:])
        self._check_count(choice, len(having))
        taken = choice.strategy.choice(len(having))
        if taken == BASE and base is None:
            raise MergeConflict("is not in the base")
        if taken is not None:
            self._check_alike(entries[0], base if taken == BASE else entries[taken])
            return Step(name, take=BASE if taken == BASE else having[taken])
        untouched = choice.strategy.needs_base and base is not None and _same(base, entries[0])
        alone = len(entries) == 1 < len(self._sides)  # nobody else has it
        if same and (choice.strategy.idempotent or untouched or alone):
            return Step(name, take=0)
        if (side := self._one_sided(choice, entries, base)) is not None:
            return Step(name, take=having[side])
        self._check_numbers(choice, entries, base, having)
        return self._compute(name, choice, having)

    def _one_sided(self, choice: Choice, entries: Sequence[Entry], base: Entry | None) -> int | None:
        """The one tip that changed the parameter, where that settles it: for what cannot be computed with it does."""
        if base is None or not (choice.strategy.one_sided or not _computable(entries[0])):
            return None
        changed = [index for index, entry in enumerate(entries) if not _same(entry, base)]
        if not changed or all(_same(entries[index], entries[changed[0]]) for index in changed):
            place = changed[0] if changed else 0
            self._check_alike(entries[0], entries[place])
            return place
        return None

    def _check_alike(self, ours: Entry, other: Entry | None) -> None:
        if other is not None and other.tensor != ours.tensor:
            raise MergeConflict(f"is {other.tensor} in one model and {ours.tensor} in the first")

    def _check_numbers(
        self, choice: Choice, entries: Sequence[Entry], base: Entry | None, having: Sequence[int]
    ) -> None:
        """Raise ``MergeConflict`` unless these tensors can be computed with."""
        strategy = choice.strategy
        base = base if strategy.needs_base or strategy.takes_base else None
        for entry in (*entries, *([base] if base else [])):
            if not _computable(entry):
                raise MergeConflict(
                    f"is {entry.tensor.dtype.name} and not the same everywhere: --rule 'NAME ours' keeps the first"
                )
        if strategy.needs_base and base is None:
            raise MergeConflict(f"has no base, which {choice.name} needs: the models have no common ancestor with it")
        places = [*having, *([BASE] if base else [])]
        for place, entry in zip(places, (*entries, *([base] if base else [])), strict=True):
            self._check_shape(entries[0], entry, self._rows.get(place))

    def _check_count(self, choice: Choice, count: int) -> None:
        most = choice.strategy.most
        if count == 1 < len(self._sides):
            return  # nobody else has it: there is nothing to merge
        if count < choice.strategy.least or (most is not None and count > most):
            raise UsageError(f"{choice.name} cannot merge {count} models")

    def _check_shape(self, ours: Entry, entry: Entry, rows: Rows | None) -> None:
        shape, expected = entry.tensor.shape, ours.tensor.shape
        if rows and shape[:1] == (rows.count,) and expected == (len(rows.places), *shape[1:]):
            if entry.tensor.strides or ours.tensor.strides:
                raise MergeConflict("has tables of different sizes that are not row after row in memory")
            return
        if shape != expected:
            hint = ": --tokenizer names the file that aligns tables" if shape[1:] == expected[1:] else ""
            raise MergeConflict(f"has the shapes {list(expected)} and {list(shape)}{hint}")
        if entry.tensor.strides != ours.tensor.strides:
            raise MergeConflict("has its elements in different orders in memory")

    def _compute(self, name: str, choice: Choice, having: Sequence[int]) -> Step:
        order = list(range(len(having)))
        if not choice.strategy.ordered:  # the order in which experts are named has no say, not even in the last bit
            order.sort(key=lambda index: (self._digests[having[index]], choice.weights[index]))
        strategy = choice.strategy if order == sorted(order) else choice.strategy.reordered(order)
        weights = tuple(choice.weights[index] for index in order)
        return Step(name, None, Choice(choice.name, strategy, weights), tuple(having[index] for index in order))


def _same(one: Entry, other: Entry) -> bool:
    return (one.tensor, one.digest) == (other.tensor, other.digest)


def _computable(entry: Entry) -> bool:
    return is_float(REAL.get(entry.tensor.dtype.name, entry.tensor.dtype.name))


def check(recipe: Recipe) -> None:
    """Raise ``UsageError`` for a strategy that does not exist, wherever the recipe names it."""
    for name in (recipe.strategy, *(rule.strategy for rule in recipe.rules if rule.strategy)):
        load(name)

"""Recipes: which strategy, with which options and weights, merges which parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from ..errors import UsageError
from ..merges import Strategy, load, make

# Moments and counters of optimizers belong to one run: to mix those of two is of no use to either.
EXCLUDED = ("optimizer*", "*optimizer_state*", "lr_scheduler*", "scheduler*", "scaler*", "rng_state*", "*.exp_avg*")
_NUMBER = re.compile(r"(?:^|[./])(\d+)(?=[./]|$)")

Missing = Literal["error", "ours", "any"]
Vocabulary = Literal["strict", "ours"]


@dataclass(frozen=True, slots=True)
class Gradient:
    """A number that changes over the depth of the model: linear between ``values``, which are evenly spaced."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise UsageError("a gradient without values")

    def at(self, depth: float) -> float:
        """The number at a depth between 0, the first layer, and 1, the last."""
        place = depth * (len(self.values) - 1)
        index = min(int(place), max(0, len(self.values) - 2))
        part = self.values[index : index + 2]
        return part[0] if len(part) == 1 else part[0] + (part[1] - part[0]) * (place - index)


Scalar: TypeAlias = float | Gradient


@dataclass(frozen=True, slots=True)
class Rule:
    """What is different for parameters whose names match one of the globs; what is not said stays as it is."""

    match: tuple[str, ...]
    strategy: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    weights: tuple[Scalar, ...] = ()

    def matches(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.match)


@dataclass(frozen=True, slots=True)
class Choice:
    """How one parameter is merged: the strategy under its name, and one weight for each tip."""

    name: str
    strategy: Strategy
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the tips become one model. ``weights`` has one for each tip, or none: all count the same.

    Of several rules that match a parameter the last that says something has its way. ``missing`` is what happens to
    parameters that some tips have not: an error, the first tip's way, or a merge of those that are. ``vocabulary`` is
    what happens to tables with different numbers of rows: an error, or the rows that the first tip has, found by the
    file ``tokenizer`` of each tip. ``statistics`` is the file of each tip that holds what some strategies ask for.
    """

    strategy: str = "average"
    options: Mapping[str, object] = field(default_factory=dict)
    weights: tuple[Scalar, ...] = ()
    rules: tuple[Rule, ...] = ()
    exclude: tuple[str, ...] = EXCLUDED
    missing: Missing = "error"
    vocabulary: Vocabulary = "strict"
    tokenizer: str = ""
    statistics: str = ""

    def excluded(self, name: str) -> bool:
        """Whether a parameter is none of the model's: the first tip's stays."""
        return any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def choose(self, name: str, count: int, depth: float = 0.0) -> Choice:
        """How the parameter ``name`` of ``count`` tips is merged. Raises ``UsageError`` for what makes no sense."""
        strategy, options, weights = self.strategy, dict(self.options), self.weights
        for rule in self.rules:
            if rule.matches(name):
                if rule.strategy and rule.strategy != strategy:
                    strategy, options = rule.strategy, {}  # another strategy has other options
                options |= rule.options
                weights = rule.weights or weights
        weights = weights or (1.0,) * count
        if len(weights) != count:
            raise UsageError(f"{len(weights)} weights for {count} models")
        found = {key: _at(value, depth) for key, value in options.items()}
        numbers = tuple(weight.at(depth) if isinstance(weight, Gradient) else weight for weight in weights)
        return Choice(strategy, make(strategy, found), numbers)

    def weighing(self, masses: Iterable[float]) -> Recipe:
        """The same, where a tip that holds several experts already counts as many: unless weights are given, and if
        they are shares to the strategy."""
        counted = tuple(masses)
        given = self.weights or len(set(counted)) < 2 or not load(self.strategy).shares
        return self if given else replace(self, weights=counted)


def _at(value: object, depth: float) -> object:
    """An option's value at a depth; one with a value for each tip has a gradient in any of them."""
    if isinstance(value, tuple):
        return tuple(_at(item, depth) for item in value)
    return value.at(depth) if isinstance(value, Gradient) else value


def depths(names: Iterable[str]) -> dict[str, float]:
    """How deep in its model each parameter sits: its layer's number, the first in its name, from 0 to 1; 0 for what is
    in no layer."""
    layers: dict[str, tuple[str, int]] = {}
    last: dict[str, int] = {}
    for name in names:
        if found := _NUMBER.search(name):
            stem, number = name[: found.start()], int(found[1][:9])
            layers[name] = stem, number
            last[stem] = max(last.get(stem, 0), number)
    return {name: number / last[stem] if last[stem] else 1.0 for name, (stem, number) in layers.items()}

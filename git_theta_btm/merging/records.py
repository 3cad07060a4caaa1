"""Records: what a merge was made of, and how, whichever way it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from ..merges import make, spelled
from .recipe import Gradient, Recipe


@dataclass(frozen=True, slots=True)
class Expert:
    """A tip of a merge: its commit, what the user called it, and how many experts it counts for."""

    commit: str
    name: str
    mass: float = 1.0


@dataclass(frozen=True, slots=True)
class Record:
    """What was merged, and how. A recipe has one weight for each expert, and its options as texts or gradients.

    ``files`` are those that another recipe is for, by their paths.
    """

    recipe: Recipe
    experts: tuple[Expert, ...]
    base: str | None = None
    files: Mapping[str, Recipe] = field(default_factory=dict)

    def of(self, path: str) -> Recipe:
        """How the file at a path was merged."""
        return self.files.get(path, self.recipe)

    @property
    def mass(self) -> float:
        """How many experts the merge holds."""
        return sum(expert.mass for expert in self.experts)


def record(recipe: Recipe, experts: Sequence[Expert], base: str | None = None) -> Record:
    """The record of a merge by a recipe: all options spelled out, all values as they will be read again.

    Raises ``UsageError`` for a strategy or an option that does not exist.
    """
    rules = [replace(rule, match=(glob,)) for rule in recipe.rules for glob in rule.match]
    seen = {recipe.strategy}
    found = []
    for rule in rules:
        options = _texts(rule.options)
        if rule.strategy and rule.strategy not in seen:  # else it may go on from options of an earlier rule
            options = _complete(rule.strategy, options)
        seen.add(rule.strategy or "")
        found.append(replace(rule, options=options))
    whole = replace(
        recipe.weighing(expert.mass for expert in experts),
        options=_complete(recipe.strategy, _texts(recipe.options)),
        rules=tuple(found),
    )
    return Record(replace(whole, weights=whole.weights or (1.0,) * len(experts)), tuple(experts), base)


def _complete(strategy: str, options: Mapping[str, object]) -> dict[str, object]:
    """All options of a strategy. Of a gradient its values are checked."""
    made = make(strategy, {name: _first(value) for name, value in options.items()})
    every = {spelled(item.name): written(getattr(made, item.name)) for item in fields(made)}
    return {name: options[name] if _varies(options.get(name)) else text for name, text in every.items()}


def _varies(value: object) -> bool:
    """Whether a value is a gradient, or has one for a model."""
    return isinstance(value, Gradient) or (isinstance(value, tuple) and any(map(_varies, value)))


def _first(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_first, value))
    return value.values[0] if isinstance(value, Gradient) else value


def _texts(options: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("-", "_"): value if _varies(value) else written(value) for name, value in options.items()}


def written(value: object) -> str:
    """A value as it can be read again."""
    if isinstance(value, tuple | list):
        return ",".join(map(written, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Gradient):
        return ":".join(map(repr, value.values)) + (":" if len(value.values) == 1 else "")
    return str(value)


def together(files: Mapping[str, Record]) -> Record:
    """One record of what several files of one merge were made of: the recipe of most of them is that of all but some.

    Of recipes for as many the one of the first path is meant, and the experts have the names that they have there.
    """
    distinct: list[tuple[Recipe, list[str]]] = []
    for path in sorted(files):
        found = next((paths for recipe, paths in distinct if recipe == files[path].recipe), None)
        if found is None:
            distinct.append((files[path].recipe, found := []))
        found.append(path)
    most, same = max(distinct, key=lambda item: len(item[1]))
    others = {path: files[path].recipe for path in sorted(files) if path not in same}
    return replace(files[min(files)], recipe=most, files=others)

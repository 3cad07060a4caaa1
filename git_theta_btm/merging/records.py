"""Records: what a merge was made of, and how, whichever way it is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from ..merges import make, spelled
from .recipe import Gradient, Recipe

NONE = "none"  # in the place of a strategy: no file was merged by one


@dataclass(frozen=True, slots=True)
class Expert:
    """A tip of a merge: its commit, what the user called it, and how many experts it counts for."""

    commit: str
    name: str
    mass: float = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that was not merged, but is as this commit has it."""

    commit: str


@dataclass(frozen=True, slots=True)
class ByHand:
    """A file that a person made, in a way that nothing can repeat: the digest of its manifest."""

    digest: str


@dataclass(frozen=True, slots=True)
class Record:
    """What was merged, and how. A recipe has one weight for each expert, and its options as texts or gradients.

    ``files`` are those that another recipe is for, by their paths, and ``bases`` what the base of some of these is
    instead. ``whole`` are those that no recipe is for; where it is for none at all, its strategy is ``NONE``.
    """

    recipe: Recipe
    experts: tuple[Expert, ...]
    base: str | None = None
    files: Mapping[str, Recipe] = field(default_factory=dict)
    bases: Mapping[str, str | None] = field(default_factory=dict)
    whole: Mapping[str, Taken | ByHand] = field(default_factory=dict)

    def of(self, path: str) -> Recipe:
        """How the file at a path was merged."""
        return self.files.get(path, self.recipe)

    def base_of(self, path: str) -> str | None:
        """The base that the file at a path was merged with."""
        return self.bases.get(path, self.base)

    def only(self, path: str) -> Record:
        """The record of the file at a path alone."""
        whole = {path: self.whole[path]} if path in self.whole else {}
        return Record(self.of(path), self.experts, self.base_of(path), whole=whole)

    @property
    def mass(self) -> float:
        """How many experts the merge holds: of one that only took files of a single commit, those of that one."""
        sources = {item.commit if isinstance(item, Taken) else "" for item in self.whole.values()}
        if self.recipe.strategy == NONE and len(sources) == 1 and "" not in sources:
            return {expert.commit: expert.mass for expert in self.experts}.get(sources.pop(), 1.0)
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
    """One record of what several files of one merge were made of: the recipe of most of them is that of all but some,
    and so is its base.

    Of recipes for as many the one of the first path is meant, and the experts have the names that they have there.
    """
    whole = {path: found.whole[name] for path, found in sorted(files.items()) for name in found.whole}
    merged = {path: found for path, found in sorted(files.items()) if not found.whole}
    if not merged:
        return replace(files[min(files)], whole=whole)
    distinct: list[tuple[Recipe, str | None, list[str]]] = []
    for path, found in merged.items():
        how = found.recipe, found.base
        same = next((paths for recipe, base, paths in distinct if (recipe, base) == how), None)
        if same is None:
            distinct.append((*how, same := []))
        same.append(path)
    most, base, same = max(distinct, key=lambda item: len(item[2]))
    others = {path: found for path, found in merged.items() if path not in same}
    return Record(
        most,
        next(iter(merged.values())).experts,
        base,
        {path: found.recipe for path, found in others.items()},
        {path: found.base for path, found in others.items() if found.base != base},
        whole,
    )

"""Drafts: what one place says about a merge, before it is known which models are merged.

Places are put over each other: the configuration, an attribute, a recipe file, the command line. What a higher one
says has its way; rules and exclusions add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from ..errors import UsageError
from .recipe import EXCLUDED, Missing, Recipe, Rule, Scalar, Vocabulary
from .weights import posterior, refined

MISSING = ("error", "ours", "any")
VOCABULARY = ("strict", "ours")


@dataclass(frozen=True, slots=True)
class Prior:
    """Weights that are in a file."""

    path: str


# In order, by the experts' names, or in a file. None in order: all count the same.
Weights: TypeAlias = tuple[Scalar, ...] | Mapping[str, Scalar] | Prior


@dataclass(frozen=True, slots=True)
class DraftRule:
    """A rule whose weights may be given by name."""

    rule: Rule
    weights: Weights | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What one place says; None, or nothing, where it does not.

    ``defaults`` are options by the strategy that they are for, whichever is chosen. An empty text among ``exclude``
    takes back all before it. ``notes`` are lines for the user about what has no effect.
    """

    strategy: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    weights: Weights | None = None
    sharpen: float | None = None
    top_k: int | None = None
    rules: tuple[DraftRule, ...] = ()
    exclude: tuple[str, ...] = ()
    missing: Missing | None = None
    vocabulary: Vocabulary | None = None
    experts: tuple[str, ...] = ()
    base: str | None = None
    notes: tuple[str, ...] = ()

    def over(self, lower: Draft) -> Draft:
        """Both together. Options of the lower one's strategy end with it, if this one names another."""
        other = self.strategy and lower.strategy and self.strategy != lower.strategy
        defaults = {
            name: {**lower.defaults.get(name, {}), **self.defaults.get(name, {})}
            for name in (*lower.defaults, *self.defaults)
        }
        return Draft(
            strategy=self.strategy or lower.strategy,
            options={**({} if other else lower.options), **self.options},
            defaults=defaults,
            weights=lower.weights if self.weights is None else self.weights,
            sharpen=lower.sharpen if self.sharpen is None else self.sharpen,
            top_k=lower.top_k if self.top_k is None else self.top_k,
            rules=lower.rules + self.rules,
            exclude=lower.exclude + self.exclude,
            missing=self.missing or lower.missing,
            vocabulary=self.vocabulary or lower.vocabulary,
            experts=self.experts or lower.experts,
            base=self.base or lower.base,
            notes=lower.notes + self.notes,
        )


def layered(drafts: Iterable[Draft]) -> Draft:
    """All together, the lowest first."""
    found = Draft()
    for draft in drafts:
        found = draft.over(found)
    return found


def resolve(draft: Draft, names: Sequence[str]) -> Recipe:
    """The recipe for the experts of these names, in the order of the merge.

    Raises ``UsageError`` for weights of an expert that is not among them, or for none of one that is.
    """
    strategy = draft.strategy or Recipe().strategy
    return Recipe(
        strategy=strategy,
        options={**draft.defaults.get(strategy, {}), **draft.options},
        weights=_refined(draft, names),
        rules=tuple(_rule(item, draft, strategy, names) for item in draft.rules),
        exclude=_excluded(draft.exclude),
        missing=draft.missing or "error",
        vocabulary=draft.vocabulary or "strict",
    )


def _rule(item: DraftRule, draft: Draft, strategy: str, names: Sequence[str]) -> Rule:
    rule = replace(item.rule, weights=_positional(item.weights, names, "a rule's weights"))
    if rule.strategy in (None, strategy):
        return rule  # the options that it starts with have the defaults already
    return replace(rule, options={**draft.defaults.get(rule.strategy or "", {}), **rule.options})


def _refined(draft: Draft, names: Sequence[str]) -> tuple[Scalar, ...]:
    if isinstance(draft.weights, Prior):
        return posterior(draft.weights.path, names, draft.sharpen, draft.top_k)
    weights = _positional(draft.weights, names, "weights")
    if draft.sharpen is None and draft.top_k is None:
        return weights
    numbers = weights or (1.0,) * len(names)
    if not all(isinstance(weight, float) for weight in numbers):
        raise UsageError("weights with a gradient can neither be sharpened nor cut to the top ones")
    return refined(cast("tuple[float, ...]", numbers), draft.sharpen, draft.top_k)


def _positional(weights: Weights | None, names: Sequence[str], place: str) -> tuple[Scalar, ...]:
    if isinstance(weights, Prior):
        return posterior(weights.path, names)
    if isinstance(weights, Mapping):
        for name in weights:
            if name not in names:
                raise UsageError(f"{place}: {name[:80]!r} is not merged: there are {', '.join(names)[:200]}")
        for name in names:
            if name not in weights:
                raise UsageError(f"{place}: none for {name[:80]!r}")
        return tuple(weights[name] for name in names)
    if weights and len(weights) != len(names):
        raise UsageError(f"{place}: {len(weights)} for {len(names)} models")
    return weights or ()


def _excluded(globs: Sequence[str]) -> tuple[str, ...]:
    found = list(EXCLUDED)
    for glob in globs:
        if glob:
            found.append(glob)
        else:
            found.clear()
    return tuple(dict.fromkeys(found))


def unused(draft: Draft, parameters: Iterable[str]) -> list[tuple[str, str]]:
    """The globs that match none of the parameters, each with what it is for: ``rule`` or ``exclude``."""
    names = list(parameters)
    globs = [("rule", glob) for item in draft.rules for glob in item.rule.match]
    globs += [("exclude", glob) for glob in draft.exclude if glob]
    return [(place, glob) for place, glob in dict.fromkeys(globs) if not any(map(Rule((glob,)).matches, names))]


def check_globs(draft: Draft, parameters: Iterable[str]) -> None:
    """Raise ``UsageError`` for a glob of a rule or an exclusion that matches none of the parameters."""
    for _, glob in unused(draft, parameters):
        raise UsageError(f"no parameter matches {glob[:80]!r}")

"""Trailers: what a merge was made of, in the message of its commit, so that it can be repeated from there.

    Theta-Merge: ties density=0.2 lambda=1.0 normalize=true missing=error vocabulary=strict
    Theta-Rule: '*.embed.weight' average weights=1.0,2.0
    Theta-Expert: 5b1e6c... 0.7 legal
    Theta-Expert: 9d02aa... 0.3 'medical notes' mass=2.0
    Theta-Base: 07f4c1...
    Theta-Version: 1

Options are spelled out, also those that were not given; ``statistics=`` and ``tokenizer=`` are paths in the experts'
trees, and stand there only if the merge read such files. Numbers are the shortest text that is the same float. Words
are quoted as for a shell; one that no terminal should print is ``json:`` and a JSON string. What a tip counts for where
no weights are given, because it holds several experts, is its mass, which is 1 unless it says so.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import AnyStr, cast

from ..errors import ThetaError, UsageError
from ..merges import make, spelled
from .drafts import MISSING, VOCABULARY
from .messages import insert, last_lines
from .reading import option, scalar
from .recipe import EXCLUDED, Gradient, Missing, Recipe, Rule, Scalar, Vocabulary

VERSION = 1

_OURS = ("Merge", "Rule", "Exclude", "Expert", "Base", "Version")
_LINE = re.compile(rf"Theta-({'|'.join(_OURS)})[ \t]*:(.*)")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_FILES = ("statistics", "tokenizer")  # paths in the trees of the experts
_JSON = "json:"


@dataclass(frozen=True, slots=True)
class Expert:
    """A tip of a merge: its commit, what the user called it, and how many experts it counts for."""

    commit: str
    name: str
    mass: float = 1.0


@dataclass(frozen=True, slots=True)
class Record:
    """What was merged, and how. The recipe has one weight for each expert, and its options as texts or gradients."""

    recipe: Recipe
    experts: tuple[Expert, ...]
    base: str | None = None

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
    every = {spelled(item.name): _text(getattr(made, item.name)) for item in fields(made)}
    return {name: options[name] if _varies(options.get(name)) else text for name, text in every.items()}


def _varies(value: object) -> bool:
    """Whether a value is a gradient, or has one for a model."""
    return isinstance(value, Gradient) or (isinstance(value, tuple) and any(map(_varies, value)))


def _first(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_first, value))
    return value.values[0] if isinstance(value, Gradient) else value


def _texts(options: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("-", "_"): value if _varies(value) else _text(value) for name, value in options.items()}


def _text(value: object) -> str:
    """A value as it can be read again."""
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Gradient):
        return ":".join(map(repr, value.values)) + (":" if len(value.values) == 1 else "")
    return str(value)


# -- writing ---------------------------------------------------------------------------------------------------------


def dumps(merge: Record) -> list[str]:
    """The lines of a record. Raises ``UsageError`` if it has not one weight for each expert."""
    recipe = merge.recipe
    if len(recipe.weights) != len(merge.experts):
        raise UsageError(f"{len(recipe.weights)} weights for {len(merge.experts)} models")
    words = {name: getattr(recipe, name) for name in ("missing", "vocabulary", *_FILES) if getattr(recipe, name)}
    lines = [("Merge", [recipe.strategy, *_assignments(recipe.options), *_assignments(words)])]
    lines += [("Rule", _rule_words(rule)) for rule in recipe.rules]
    if recipe.exclude != EXCLUDED:  # those of version 1
        lines.append(("Exclude", list(recipe.exclude) or [""]))
    for expert, weight in zip(merge.experts, recipe.weights, strict=True):
        mass = [] if expert.mass == 1 else [f"mass={expert.mass!r}"]
        lines.append(("Expert", [expert.commit, _text(weight), expert.name, *mass]))
    if merge.base:
        lines.append(("Base", [merge.base]))
    lines.append(("Version", [str(VERSION)]))
    return [" ".join([f"Theta-{key}:", *map(_quoted, words)]) for key, words in lines]


def _rule_words(rule: Rule) -> list[str]:
    (glob,) = rule.match
    weights = [f"weights={_text(rule.weights)}"] if rule.weights else []
    return [glob, *([rule.strategy] if rule.strategy else []), *_assignments(rule.options), *weights]


def _assignments(options: Mapping[str, object]) -> list[str]:
    return [f"{name}={_text(value)}" for name, value in options.items()]


def _quoted(word: str) -> str:
    if word.isprintable() and not word.startswith(_JSON):
        return shlex.quote(word)
    return shlex.quote(_JSON + json.dumps(word))


def append(message: AnyStr, lines: Sequence[str], comment: str = "#") -> AnyStr:
    """A commit's message with these lines as its record, in the place of an earlier one."""
    if isinstance(message, bytes):
        text = insert(message.decode(errors="surrogateescape"), lines, _LINE, comment)
        return text.encode(errors="surrogateescape")
    return insert(message, lines, _LINE, comment)


# -- reading ---------------------------------------------------------------------------------------------------------


def loads(message: str) -> Record | None:
    """The record at the end of a commit's message; None if there is none. Raises ``ThetaError`` for a broken one."""
    pairs = [found.groups() for line in last_lines(message) if (found := _LINE.match(line))]
    if not any(key == "Merge" for key, _ in pairs):
        return None
    return _Reader([(key, _words(key, text)) for key, text in pairs]).record()


def _words(key: str, text: str) -> list[str]:
    try:
        return [json.loads(word[len(_JSON) :]) if word.startswith(_JSON) else word for word in shlex.split(text)]
    except (ValueError, RecursionError):
        raise _broken(key, text) from None


def _broken(key: str, text: str) -> ThetaError:
    return ThetaError(f"the commit's message has a broken trailer Theta-{key}: {text.strip()[:80]!r}")


class _Reader:
    """The words of each trailer, made into a record."""

    def __init__(self, pairs: Sequence[tuple[str, list[str]]]) -> None:
        self._lines: dict[str, list[list[str]]] = {key: [] for key in _OURS}
        for key, words in pairs:
            if not words or not all(isinstance(word, str) for word in words):
                raise _broken(key, "")
            self._lines[key].append(words)

    def record(self) -> Record:
        if (self._only("Version") or [""])[0] != str(VERSION):
            raise ThetaError("the commit's message records a merge of another version: update git-theta")
        strategy, *words = self._only("Merge") or [""]
        split = [word.partition("=") for word in words]
        files = {name: value for name, _, value in split if name in _FILES}
        options = self._options("Merge", ["".join(parts) for parts in split if parts[0] not in _FILES])
        experts = [self._expert(words) for words in self._lines["Expert"]]
        exclude = self._only("Exclude")
        base = self._only("Base")
        recipe = Recipe(
            strategy=strategy,
            missing=cast(Missing, self._choice(options, "missing", MISSING)),
            vocabulary=cast(Vocabulary, self._choice(options, "vocabulary", VOCABULARY)),
            options=options,
            weights=tuple(weight for _, weight in experts),
            rules=tuple(self._rule(words) for words in self._lines["Rule"]),
            exclude=EXCLUDED if exclude is None else tuple(glob for glob in exclude if glob),
            **files,
        )
        found = tuple(expert for expert, _ in experts)
        return Record(recipe, found, self._commit("Base", base) if base else None)

    def _only(self, key: str) -> list[str] | None:
        lines = self._lines[key]
        if len(lines) > 1:
            raise ThetaError(f"the commit's message has the trailer Theta-{key} {len(lines)} times")
        return lines[0] if lines else None

    def _options(self, key: str, words: Sequence[str]) -> dict[str, object]:
        options = {}
        for word in words:
            name, sign, value = word.partition("=")
            if not sign or not name or name in options:
                raise _broken(key, word)
            options[name] = option(value)
        return options

    def _choice(self, options: dict[str, object], name: str, words: Sequence[str]) -> object:
        if options.get(name) not in words:
            raise _broken("Merge", f"{name}={options.get(name, '')}")
        return options.pop(name)

    def _rule(self, words: Sequence[str]) -> Rule:
        glob, *rest = words
        strategy = rest.pop(0) if rest and "=" not in rest[0] else None
        options = self._options("Rule", rest)
        weights = _text(options.pop("weights")).split(",") if "weights" in options else []
        return Rule((glob,), strategy, options, tuple(self._scalar("Rule", text) for text in weights))

    def _expert(self, words: Sequence[str]) -> tuple[Expert, Scalar]:
        match words:
            case [commit, weight, name]:
                mass: Scalar = 1.0
            case [commit, weight, name, mass_word] if mass_word.startswith("mass="):
                mass = self._scalar("Expert", mass_word.removeprefix("mass="))
            case _:
                raise _broken("Expert", " ".join(words))
        if isinstance(mass, Gradient) or mass <= 0:
            raise _broken("Expert", " ".join(words))
        return Expert(self._commit("Expert", [commit]), name, mass), self._scalar("Expert", weight)

    def _commit(self, key: str, words: Sequence[str]) -> str:
        if len(words) != 1 or not _COMMIT.fullmatch(words[0]):
            raise _broken(key, " ".join(words))
        return words[0]

    def _scalar(self, key: str, text: str) -> Scalar:
        found = scalar(text)
        if found is None:
            raise _broken(key, text)
        return found

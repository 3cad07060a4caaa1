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

Files that were merged in another way than most are named. Such a record is of version 2, which says the same as
version 1 of all other files; of a named one nothing but the experts, their weights if it has none of its own, and the
base is what it is for all:

    Theta-File: adapter.safetensors ties density=0.2 ... missing=error vocabulary=strict weights=1.0,1.0
    Theta-File-Rule: adapter.safetensors '*.norm.*' average
    Theta-File-Exclude: adapter.safetensors 'optimizer*'

A file that one commit's version took the place of is named with that commit, and one that a person made with the digest
of its manifest. No recipe is for these; where all are such, the strategy is ``none``. A record with such files, or with
one that was merged from another base, is of version 3:

    Theta-File: adapter.safetensors ties density=0.2 ... missing=error vocabulary=strict base=07f4c1...
    Theta-File-Taken: model.safetensors 9d02aa...
    Theta-File-Manual: head.safetensors 1f3b90...
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, cast

from ..errors import ThetaError, UsageError
from .drafts import MISSING, VOCABULARY
from .messages import KEYS, LINE, OF_FILE, WHOLE, append, lines_from
from .reading import option, scalar
from .recipe import EXCLUDED, Gradient, Missing, Recipe, Rule, Scalar, Vocabulary
from .records import ByHand, Expert, Record, Taken, record, written

__all__ = ["Expert", "Record", "append", "dumps", "loads", "record"]

_FIRST = re.compile(r"Theta-Merge[ \t]*:")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILES = ("statistics", "tokenizer")  # paths in the trees of the experts
_JSON = "json:"

# How a file was merged: the strategy with its options, the rules, and what is excluded.
_Lines: TypeAlias = tuple[list[str], Sequence[list[str]], list[str] | None]


# -- writing ---------------------------------------------------------------------------------------------------------


def dumps(merge: Record) -> list[str]:
    """The lines of a record. Raises ``UsageError`` if it has not one weight for each expert."""
    recipe = merge.recipe
    for weights in (recipe.weights, *(other.weights for other in merge.files.values())):
        if len(weights) != len(merge.experts):
            raise UsageError(f"{len(weights)} weights for {len(merge.experts)} models")
    lines = _how(recipe)
    for path, other in sorted(merge.files.items()):
        more = [] if other.weights == recipe.weights else [f"weights={written(other.weights)}"]
        more += [f"base={merge.bases[path] or ''}"] if path in merge.bases else []
        lines += [(OF_FILE[key], [path, *words]) for key, words in _how(other, more)]
    for expert, weight in zip(merge.experts, recipe.weights, strict=True):
        mass = [] if expert.mass == 1 else [f"mass={expert.mass!r}"]
        lines.append(("Expert", [expert.commit, written(weight), expert.name, *mass]))
    if merge.base:
        lines.append(("Base", [merge.base]))
    lines += [_whole(path, item) for path, item in sorted(merge.whole.items())]
    lines.append(("Version", [_version(merge.files, merge.bases or merge.whole)]))
    return [" ".join([f"Theta-{key}:", *map(_quoted, words)]) for key, words in lines]


def _version(files: Collection[object], more: Collection[object]) -> str:
    """What reads version 1 alone would take all files for merged in one way, and 2, all for merged from one base."""
    return "3" if more else "2" if files else "1"


def _whole(path: str, item: Taken | ByHand) -> tuple[str, list[str]]:
    return ("File-Taken", [path, item.commit]) if isinstance(item, Taken) else ("File-Manual", [path, item.digest])


def _how(recipe: Recipe, more: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    words = {name: getattr(recipe, name) for name in ("missing", "vocabulary", *_FILES) if getattr(recipe, name)}
    lines = [("Merge", [recipe.strategy, *_assignments(recipe.options), *_assignments(words), *more])]
    lines += [("Rule", _rule_words(rule)) for rule in recipe.rules]
    if recipe.exclude != EXCLUDED:  # those of version 1
        lines.append(("Exclude", list(recipe.exclude) or [""]))
    return lines


def _rule_words(rule: Rule) -> list[str]:
    (glob,) = rule.match
    weights = [f"weights={written(rule.weights)}"] if rule.weights else []
    return [glob, *([rule.strategy] if rule.strategy else []), *_assignments(rule.options), *weights]


def _assignments(options: Mapping[str, object]) -> list[str]:
    return [f"{name}={written(value)}" for name, value in options.items()]


def _quoted(word: str) -> str:
    if word.isprintable() and not word.startswith(_JSON):
        return shlex.quote(word)
    return shlex.quote(_JSON + json.dumps(word))


# -- reading ---------------------------------------------------------------------------------------------------------


def loads(message: str) -> Record | None:
    """The record in a commit's message, the last one if there are several; None if there is none.

    Raises ``ThetaError`` for a broken one.
    """
    pairs = [found.groups() for line in lines_from(message, _FIRST) if (found := LINE.match(line))]
    if not pairs:
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
        self._lines: dict[str, list[list[str]]] = {key: [] for key in KEYS}
        for key, words in pairs:
            if not words or not all(isinstance(word, str) for word in words):
                raise _broken(key, "")
            self._lines[key].append(words)

    def record(self) -> Record:
        files, bases, whole = self._by_path("File"), self._bases(), self._whole()
        if (self._only("Version") or [""])[0] != _version(files, bases or whole):
            raise ThetaError("the commit's message records a merge of another version: update git-theta")
        experts = [self._expert(words) for words in self._lines["Expert"]]
        weights = tuple(weight for _, weight in experts)
        base = self._only("Base")
        return Record(
            self._recipe("Merge", (self._only("Merge") or [""], self._lines["Rule"], self._only("Exclude")), weights),
            tuple(expert for expert, _ in experts),
            self._commit("Base", base) if base else None,
            self._files(weights),
            bases,
            whole,
        )

    def _recipe(self, key: str, lines: _Lines, weights: tuple[Scalar, ...]) -> Recipe:
        (strategy, *words), rules, exclude = lines
        split = [word.partition("=") for word in words]
        files = {name: value for name, _, value in split if name in _FILES}
        besides = (*_FILES, "base") if key == "File" else _FILES
        options = self._options(key, ["".join(parts) for parts in split if parts[0] not in besides])
        return Recipe(
            strategy=strategy,
            missing=cast(Missing, self._choice(key, options, "missing", MISSING)),
            vocabulary=cast(Vocabulary, self._choice(key, options, "vocabulary", VOCABULARY)),
            weights=self._weights(key, options) or weights,
            options=options,
            rules=tuple(self._rule(rule) for rule in rules),
            exclude=EXCLUDED if exclude is None else tuple(glob for glob in exclude if glob),
            **files,
        )

    def _files(self, weights: tuple[Scalar, ...]) -> dict[str, Recipe]:
        how, rules, exclude = (self._by_path(key) for key in OF_FILE.values())
        for path in (*how, *rules, *exclude):
            if len(how.get(path, ())) != 1 or len(exclude.get(path, ())) > 1:
                raise _broken("File", path)
        found = {
            path: self._recipe("File", (lines[0], rules.get(path, []), exclude.get(path, [None])[0]), weights)
            for path, lines in how.items()
        }
        for path, recipe in found.items():
            if len(recipe.weights) != len(weights):
                raise _broken("File", path)
        return found

    def _bases(self) -> dict[str, str | None]:
        """The bases of files that have their own."""
        found = {}
        for path, lines in self._by_path("File").items():
            for word in (word for words in lines for word in words if word.startswith("base=")):
                commit = word.removeprefix("base=")
                found[path] = self._commit("File", [commit]) if commit else None
        return found

    def _whole(self) -> dict[str, Taken | ByHand]:
        """The files that no recipe is for."""
        found: dict[str, Taken | ByHand] = {}
        for key in WHOLE:
            for path, lines in self._by_path(key).items():
                ((name, *others), *more) = lines
                if others or more or path in found or self._by_path("File").get(path):
                    raise _broken(key, path)
                found[path] = Taken(self._commit(key, [name])) if key == "File-Taken" else ByHand(self._digest(name))
        return found

    def _by_path(self, key: str) -> dict[str, list[list[str]]]:
        found: dict[str, list[list[str]]] = {}
        for path, *words in self._lines[key]:
            if not words:
                raise _broken(key, path)
            found.setdefault(path, []).append(words)
        return found

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

    def _choice(self, key: str, options: dict[str, object], name: str, words: Sequence[str]) -> object:
        if options.get(name) not in words:
            raise _broken(key, f"{name}={options.get(name, '')}")
        return options.pop(name)

    def _rule(self, words: Sequence[str]) -> Rule:
        glob, *rest = words
        strategy = rest.pop(0) if rest and "=" not in rest[0] else None
        options = self._options("Rule", rest)
        weights = self._weights("Rule", options)
        return Rule((glob,), strategy, options, weights)

    def _weights(self, key: str, options: dict[str, object]) -> tuple[Scalar, ...]:
        words = written(options.pop("weights")).split(",") if "weights" in options else []
        return tuple(self._scalar(key, word) for word in words)

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

    def _digest(self, text: str) -> str:
        if not _DIGEST.fullmatch(text):
            raise _broken("File-Manual", text)
        return text

    def _scalar(self, key: str, text: str) -> Scalar:
        found = scalar(text)
        if found is None:
            raise _broken(key, text)
        return found

"""Reading: recipes as users write them, in a YAML file, or as words of a command line or of Git's configuration.

    strategy: ties                              --strategy ties
    options: {density: 0.2}                     -o density=0.2
    weights: {legal: 0.5, medical: 0.5}         --weights legal=0.5,medical=0.5     or 0.5,0.5, uniform, a prior file
    rules:
      - {match: "*.embed.*", strategy: average} --rule '*.embed.* average'

A gradient over the layers is ``{gradient: [0.2, 1.0, 0.2]}`` in a file, and ``0.2:1.0:0.2`` in words.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, cast

from ..errors import UsageError
from .documents import Value, read
from .drafts import MISSING, VOCABULARY, Draft, DraftRule, Prior, Weights
from .mergekit import KEY, convert
from .recipe import Gradient, Missing, Rule, Scalar, Vocabulary

KEYS = (
    "strategy",
    "recipe",
    "base",
    "weights",
    "prior",
    "sharpen",
    "top_k",
    "missing",
    "vocabulary",
    "exclude",
    "rule",
)
_DOCUMENT = (
    "strategy", "options", "base", "missing", "vocabulary", "exclude", "experts", "weights", "sharpen", "top_k", "rules"
)  # fmt: skip
_MOST = 1 << 20  # bytes of a recipe file


def canonical(word: str) -> str:
    """A strategy's or an option's name as the code has it: dashes and underlines are the same."""
    return word.replace("-", "_")


# -- files -----------------------------------------------------------------------------------------------------------


def load(path: str) -> Draft:
    """The recipe in a file, ours or mergekit's. Raises ``UsageError`` if it cannot be read, or makes no sense."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST + 1).decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no text in UTF-8") from None
    return parse(text, path)


def parse(text: str, origin: str = "the recipe") -> Draft:
    """The recipe that a YAML text is, ours or mergekit's; ``origin`` is the file, to which others are relative.

    Raises ``UsageError`` naming the file and the key.
    """
    document = read(text, origin)
    if KEY in document.raw:
        return convert(document)
    fields = document.fields(*_DOCUMENT)
    experts, weights = _experts(fields["experts"]) if "experts" in fields else ((), None)
    if "weights" in fields:
        if weights is not None:
            raise fields["weights"].error("experts have their weights already")
        weights = _weights(fields["weights"])
    return Draft(
        strategy=canonical(fields["strategy"].text()) if "strategy" in fields else None,
        options=_options(fields.get("options")),
        weights=_known(fields, weights, experts),
        sharpen=fields["sharpen"].number() if "sharpen" in fields else None,
        top_k=_whole(fields["top_k"]) if "top_k" in fields else None,
        rules=tuple(map(_rule, fields["rules"].items())) if "rules" in fields else (),
        exclude=_globs(fields["exclude"]) if "exclude" in fields else (),
        missing=cast(Missing, fields["missing"].word(*MISSING)) if "missing" in fields else None,
        vocabulary=cast(Vocabulary, fields["vocabulary"].word(*VOCABULARY)) if "vocabulary" in fields else None,
        experts=experts,
        base=fields["base"].text() if "base" in fields else None,
    )


def _experts(value: Value) -> tuple[tuple[str, ...], Weights | None]:
    """The revisions, and their weights by name if they have any."""
    weights: dict[str, Scalar] = {}
    names: list[str] = []
    if value.is_a(dict):
        weights = {name: item.scalar() for name, item in value.entries().items()}
        return tuple(weights), weights or None
    for item in value.items():
        fields = item.fields("revision", "weight") if item.is_a(dict) else {"revision": item}
        if "revision" not in fields:
            raise item.error("has no revision")
        name = fields["revision"].text()
        if name in names:
            raise item.error("is there twice")
        names.append(name)
        if "weight" in fields:
            weights[name] = fields["weight"].scalar()
    if weights and len(weights) < len(names):
        raise value.error("some have a weight, and some have none")
    return tuple(names), weights or None


def _known(fields: Mapping[str, Value], weights: Weights | None, experts: Sequence[str]) -> Weights | None:
    """The weights, if they are of the experts that the file names."""
    if experts and isinstance(weights, Mapping):
        for name in weights:
            if name not in experts:
                raise fields["weights"].error(f"{name[:80]!r} is not among the experts")
    return weights


def _weights(value: Value) -> Weights:
    if value.is_a(str):
        text = value.text()
        return () if text == "uniform" else Prior(os.path.join(os.path.dirname(value.origin), text))
    if value.is_a(dict):
        return {name: item.scalar() for name, item in value.entries().items()}
    return tuple(item.scalar() for item in value.items())


def _rule(value: Value) -> DraftRule:
    fields = value.fields("match", "strategy", "options", "weights")
    if "match" not in fields:
        raise value.error("has no match")
    strategy = canonical(fields["strategy"].text()) if "strategy" in fields else None
    rule = Rule(fields["match"].texts(), strategy, _options(fields.get("options")))
    return DraftRule(rule, _weights(fields["weights"]) if "weights" in fields else None)


def _options(value: Value | None) -> dict[str, object]:
    return {canonical(name): item.option() for name, item in value.entries().items()} if value else {}


def _globs(value: Value) -> tuple[str, ...]:
    """Globs; an empty list takes back all that were excluded before."""
    return value.texts() if value.raw else ("",)


def _whole(value: Value) -> int:
    number = value.number()
    if not number.is_integer() or number < 1:
        raise value.error("has to be a whole number above 0")
    return int(number)


# -- words -----------------------------------------------------------------------------------------------------------


def from_pairs(pairs: Iterable[tuple[str, str]]) -> Draft:
    """The draft that keys and values make in their order, as ``-X key=value`` has them.

    ``method`` is another word for ``strategy``. A key with a point, ``ties.density``, is for that strategy alone; any
    other that is not ours is an option of the strategy that is chosen. A ``recipe`` file is below all the rest.
    Raises ``UsageError`` for a value that makes no sense.
    """
    draft, recipe = Draft(), Draft()
    for key, value in pairs:
        word = "strategy" if key == "method" else canonical(key)
        if word == "recipe":
            recipe = load(value).over(recipe)
        elif word in KEYS:
            draft = replace(draft, **_said(word, value, draft))
        elif "." in word:
            strategy, _, name = word.partition(".")
            options = {**draft.defaults.get(strategy, {}), name: option(value)}
            draft = replace(draft, defaults={**draft.defaults, strategy: options})
        else:
            draft = replace(draft, options={**draft.options, word: option(value)})
    return draft.over(recipe)


def _said(key: str, value: str, draft: Draft) -> dict[str, Any]:
    """The field of the draft that a key of ours sets."""
    if key == "rule":
        return {"rules": (*draft.rules, rule(value))}
    if key == "exclude":
        return {"exclude": (*draft.exclude, value)}
    if not value:
        raise UsageError(f"{key} has no value")
    if key == "strategy":
        return {"strategy": canonical(value)}
    if key in ("missing", "vocabulary"):
        words = MISSING if key == "missing" else VOCABULARY
        if value not in words:
            raise UsageError(f"{key} cannot be {value[:40]!r}: it is one of {', '.join(words)}")
    readers = {"weights": weights, "prior": Prior, "sharpen": _sharpness, "top_k": _count}
    return {"weights" if key == "prior" else key: readers[key](value) if key in readers else value}


def rule(text: str) -> DraftRule:
    """A rule in words, quoted as a shell has it: ``GLOB [STRATEGY] [key=value ...]``. Raises ``UsageError``."""
    try:
        glob, *words = shlex.split(text)
    except ValueError:
        raise UsageError(f"the rule {text[:80]!r} has to be 'GLOB STRATEGY key=value ...'") from None
    strategy = canonical(words.pop(0)) if words and "=" not in words[0] else None
    options: dict[str, object] = {}
    found: Weights | None = None
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise UsageError(f"{word[:80]!r} in the rule for {glob[:80]!r} has to be key=value")
        if key == "weights":
            found = weights(value)
        else:
            options[canonical(key)] = option(value)
    return DraftRule(Rule((glob,), strategy, options), found)


def weights(text: str) -> Weights:
    """Weights in words: ``uniform``, ``0.5,0.5``, ``legal=0.5,medical=0.5``, or a file. Raises ``UsageError``."""
    if text == "uniform":
        return ()
    parts = text.split(",")
    named = {name: scalar(number) for name, sign, number in (part.rpartition("=") for part in parts) if name and sign}
    numbers = [scalar(part) for part in parts]
    if len(named) == len(parts) and None not in named.values():
        return cast("dict[str, Scalar]", named)
    return Prior(text) if None in numbers else tuple(number for number in numbers if number is not None)


def option(text: str) -> object:
    """An option's value in words: a gradient, numbers of which one is, or the text, for the strategy to understand."""
    found = tuple(map(scalar, text.split(",")))
    if None in found or not any(isinstance(item, Gradient) for item in found):
        return text
    return found[0] if len(found) == 1 else found


def scalar(text: str) -> Scalar | None:
    """A number, or a gradient ``0.2:1.0:0.2``; None for anything else. One number with a colon is a gradient too."""
    parts = text.split(":")
    try:
        values = [float(part) for part in (parts[:-1] if len(parts) == 2 and not parts[1] else parts)]
    except ValueError:
        return None
    if not all(map(isfinite, values)):
        return None
    return Gradient(tuple(values)) if len(parts) > 1 else values[0]


def _sharpness(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"sharpen cannot be {text[:40]!r}: it is a number") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise UsageError(f"top-k cannot be {text[:40]!r}: it is a whole number above 0")
    return int(text)

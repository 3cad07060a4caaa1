"""The options that say how models are merged, for every command that merges some."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import click

from ..errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
Pairs = list[tuple[str, str]]

_OPTIONS = {
    "strategy": click.option(
        "-s", "--strategy", metavar="NAME", help="How to merge; 'git theta merge --list' names all."
    ),
    "weights": click.option(
        "--weights", metavar="W", help="0.7,0.3 or legal=0.7,code=0.3 or uniform, or a file of a posterior."
    ),
    "options": click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the strategy."),
    "rules": click.option(
        "--rule", "rules", multiple=True, metavar="RULE", help="'GLOB STRATEGY key=value' for some parameters."
    ),
    "recipe": click.option(
        "--recipe", metavar="FILE", help="A recipe in YAML, ours or mergekit's, below the other options."
    ),
    "base": click.option(
        "--base", metavar="REV", help="Where the experts started from; by default their common ancestor."
    ),
    "missing": click.option("--missing", metavar="WORD", help="Parameters that not all have: error, ours or any."),
    "vocabulary": click.option(
        "--vocabulary", metavar="WORD", help="Tables with different numbers of rows: strict or ours."
    ),
    "tokenizer": click.option("--tokenizer", metavar="PATH", help="The file by which rows of such tables are matched."),
    "statistics": click.option(
        "--statistics", metavar="PATH", help="The file of each expert that fisher and regmean ask for."
    ),
    "sharpen": click.option("--sharpen", metavar="T", help="Raise the weights to this power."),
    "top_k": click.option("--top-k", metavar="K", help="Keep only the largest weights."),
    "exclude": click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Parameters that stay as the first model has them."
    ),
    "device": click.option("--device", metavar="NAME", help="Compute with torch there, as on cuda."),
}
_PLURAL = {"rules": "rule"}


def recipe_options(*, without: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """All of them but some, handed on as one argument: ``pairs`` of keys and values, as ``-X`` has them."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def collected(*arguments: Any, **values: Any) -> Any:
            said = {name: values.pop(name) for name in _OPTIONS if name not in without}
            return function(*arguments, pairs=_pairs(said), **values)

        for name, option in reversed(_OPTIONS.items()):
            if name not in without:
                collected = option(collected)
        return cast(Function, collected)

    return decorate


def _pairs(said: Mapping[str, Any]) -> Pairs:
    found: Pairs = []
    for name, value in said.items():
        if name == "options":
            found += map(_pair, value)
        elif isinstance(value, tuple):
            found += [(_PLURAL.get(name, name), text) for text in value]
        elif value is not None:
            found.append((name, value))
    return found


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"-o {text[:80]} has to be KEY=VALUE")
    return key, value

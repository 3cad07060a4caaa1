"""Listing: what strategies there are, what each does, and the options that it has."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, fields
from typing import Any

from ..merges import load, names, spelled


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a strategy: its default, what it may be, and one line about it."""

    name: str
    default: Any
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    text: str

    @property
    def range(self) -> str:
        """What it may be, in words; empty if anything of its type."""
        if self.choices:
            return " or ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.high is not None else ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A strategy. ``needs`` is what it makes no sense without, ``exact`` whether every machine computes the same bits;
    ``source`` is where it comes from, at length."""

    name: str
    text: str
    options: tuple[Option, ...]
    needs: tuple[str, ...]
    exact: bool
    source: str


def strategies() -> list[Listed]:
    """All strategies that can be had, those of installed packages last."""
    return [strategy(name) for name in names()]


def strategy(name: str) -> Listed:
    """One strategy. Raises ``UsageError`` if there is none of that name."""
    found = load(name)
    needs = [*(["a base"] if found.needs_base else []), *(["statistics"] if found.statistics else [])]
    if found.most is not None:
        count = "1 model" if found.most == 1 else f"{found.most} models"
        needs.append(count if found.least == found.most else f"at most {count}")
    elif found.least > 1:
        needs.append(f"at least {found.least} models")
    return Listed(
        name=name.replace("-", "_"),
        text=" ".join(inspect.cleandoc(found.__doc__ or "").partition("\n\n")[0].split()),
        options=tuple(_option(item) for item in fields(found)),
        needs=tuple(needs),
        exact=found.exact,
        source=inspect.cleandoc(sys.modules[found.__module__].__doc__ or ""),
    )


def _option(item: Any) -> Option:
    limits = item.metadata
    return Option(
        spelled(item.name),
        item.default,
        limits.get("low"),
        limits.get("high"),
        tuple(map(str, limits.get("choices") or ())),
        limits.get("text", ""),
    )

"""What all commands print with: data to standard output, messages to standard error, colour as git has it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ..git import Git, quote

Function = TypeVar("Function", bound=Callable[..., Any])
_VERSION = 1  # of everything that --json prints; raised when a field changes its meaning or goes
_PATIENCE = 1.0  # seconds that a job may last before it shows its progress

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, whose field version is 1.")


def colour_option(function: Function) -> Function:
    """``--color``, by the name that git gives it."""
    choice = click.Choice(["auto", "always", "never"])
    return click.option("--color", type=choice, default="auto", help="Whether to colour; auto asks git.")(function)


def data(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """A line of explanation."""
    sys.stdout.flush()
    click.echo(printable(text), err=True)


def dump(**fields: object) -> None:
    """The result as JSON, in ASCII, with its version."""
    data(json.dumps({"version": _VERSION, **fields}, indent=2, default=_plain))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON")


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor or end a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shown(path: str) -> str:
    """A file name as it is printed: quoted, as git does, if a terminal could misread it."""
    return path if path.isprintable() and '"' not in path and "\\" not in path else quote(path)


def size(count: int) -> str:
    """A number of bytes for people: ``2.9 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def number(count: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with all columns but the last padded to the same width."""
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class Palette:
    """Colours that the user chose by ``color.theta.<slot>``, or none."""

    def __init__(self, when: str) -> None:
        """``when`` is ``always``, ``never`` or ``auto``: NO_COLOR, then git's color.theta and color.ui."""
        self._git = Git()
        self._codes: dict[str, str] = {}
        self.on = when == "always" or (when == "auto" and self._auto())

    def _auto(self) -> bool:
        if os.environ.get("NO_COLOR"):
            return False
        terminal = "true" if sys.stdout.isatty() else "false"
        return self._git.text("config", "--get-colorbool", "color.theta", terminal) == "true"

    def paint(self, text: str, slot: str, default: str) -> str:
        """Text in the colour of a slot, by git's names of colours."""
        code = self._code(f"color.theta.{slot}", default) if self.on else ""
        return f"{code}{text}{self._code('', 'reset')}" if code else text

    def _code(self, key: str, default: str) -> str:
        if key not in self._codes:
            self._codes[key] = self._git.text("config", "--get-color", key, default)
        return self._codes[key]


class Meter:
    """A counter on standard error, for a person who waits: on a terminal only, and not before a second is over."""

    def __init__(self, label: str) -> None:
        self._label, self._next = label, time.monotonic() + _PATIENCE
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next and sys.stderr.isatty():
            self._next = time.monotonic() + 0.1
            self._shown = True
            sys.stderr.write(f"\r{self._label}: {done}/{total}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            sys.stderr.write("\n")

"""A person at a terminal, or the lines that a script pipes in for one."""

from __future__ import annotations

import sys

import click

from ..merging.consulting import Person
from .console import printable


def person() -> Person:
    """Prompts and texts go to standard error, answers come from standard input."""
    return Person(_ask, _tell)


def _ask(prompt: str) -> str | None:
    click.echo(prompt, nl=False, err=True)
    line = sys.stdin.readline()
    if not line or not sys.stdin.isatty():
        click.echo(line.rstrip("\n"), err=True)
    return line or None


def _tell(text: str) -> None:
    for line in text.split("\n"):
        click.echo(printable(line), err=True)

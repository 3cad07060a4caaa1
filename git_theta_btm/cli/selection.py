"""Options by which a command is told what to fetch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

path_option = click.option(
    "-I", "--include", multiple=True, metavar="PATHS", help="Only these files: patterns of git, separated by commas."
)
parameter_option = click.option(
    "--parameters", multiple=True, metavar="GLOB", help="Only the objects of parameters with such names."
)


def included(values: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns of all ``-I`` options."""
    return tuple(pattern for value in values for pattern in value.split(",") if pattern)

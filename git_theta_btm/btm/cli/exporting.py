"""``git btm export``."""

from __future__ import annotations

import click

from ...cli.console import as_json, dump, number, say, shown, size
from ...errors import UsageError
from ...repository import Repository
from .. import exporting


@click.group()
def export() -> None:
    """Write a model for other programs."""


@export.command()
@click.argument("words", nargs=-1, type=click.Path(), metavar="[REV] DIR")
@as_json
def hf(words: tuple[str, ...], *, as_json: bool) -> None:
    """Write the model of a commit as a folder that transformers loads.

    Weights, configuration and tokenizer are those of the commit, byte for byte; nothing is checked out. An adapter that
    is not applied yet is in the weights, as if it were. A merge gets its model card, and a model of bytes a tokenizer
    of bytes. The folder must not exist; it appears whole or not at all. Without a revision it is HEAD.

    \b
    Example:
      git btm export hf legal ../legal
    """
    if len(words) not in (1, 2):
        raise UsageError("export hf takes a revision, or none, and the folder to make")
    directory = words[-1]
    made = exporting.export(Repository(), words[0] if len(words) == 2 else "HEAD", directory)
    if as_json:
        dump(commit=made.commit, directory=directory, files=made.files, size=made.size, adapted=made.adapted)
        return
    more = ", the adapter in the weights" if made.adapted else ""
    say(f"{shown(directory)}: {number(len(made.files), 'file')}, {size(made.size)}{more}")

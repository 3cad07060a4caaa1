"""``git btm status``."""

from __future__ import annotations

import click

from ...cli.console import as_json, columns, data, dump, printable, say, size
from ...repository import Repository
from ..overview import Overview, Row, overview

_SHORT = 10  # hexadecimal digits of a commit
_HEAD = ("", "branch", "domain", "step", "tokens", "loss", "perplexity", "added", "commit", "")


@click.command()
@as_json
def status(*, as_json: bool) -> None:
    """Show the seed and its experts, and what is missing.

    For each branch with a model: its domain, how far it is trained, its last loss, the best perplexity that git btm
    eval found of it, the bytes of objects that no other branch has, and whether it is being trained now.

    \b
    Example:
      git btm status
      git btm status --json
    """
    found = overview(Repository())
    if as_json:
        dump(
            seeds=[row.values() for row in found.seeds],
            experts=[row.values() for row in found.experts],
            running=found.running,
            without_text=found.without_text,
            without_expert=found.without_expert,
        )
        return
    rows = [*(("seed", *_cells(row)) for row in found.seeds), *(("expert", *_cells(row)) for row in found.experts)]
    for line in columns([_HEAD, *rows]) if rows else ():
        data(line)
    _advise(found)


def _cells(row: Row) -> tuple[str, ...]:
    held = row.checkpoint
    loss = "-" if held.loss is None else f"{held.loss:.4f}"
    perplexity = "-" if row.perplexity is None else f"{row.perplexity:.4g}"
    names = printable(row.branch), printable(held.domain) or "-"
    numbers = str(held.step), str(held.tokens), loss, perplexity, size(row.added)
    return (*names, *numbers, row.commit[:_SHORT], "training" if row.running else "")


def _advise(found: Overview) -> None:
    """What is missing, and the command that makes it."""
    if found.running:
        say(f"being trained: {', '.join(found.running)}")
    if found.without_text:
        say(f"no text: {', '.join(found.without_text)}; 'git btm data add DOMAIN FILE...' adds it")
    if not found.seeds and not found.experts:
        say("no seed: 'git btm seed train' makes it, 'git btm import' takes one from elsewhere")
    elif found.without_expert:
        say(f"no expert: {', '.join(found.without_expert)}; 'git btm branch {found.without_expert[0]}' makes one")

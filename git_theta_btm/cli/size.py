"""``git theta size``."""

from __future__ import annotations

import dataclasses
from typing import get_args

import click

from ..care.sizes import Grouping, Room, sizes
from ..manifest import spell
from ..repository import Repository
from .console import as_json, columns, data, dump, number, printable, shown
from .console import size as amount

_SHORT = 10  # hexadecimal digits of a commit


@click.command()
@click.argument("revisions", nargs=-1, metavar="[REV]...")
@click.option("--by", type=click.Choice(get_args(Grouping)), help="Print a line for each of these, too.")
@as_json
def size(revisions: tuple[str, ...], *, by: Grouping | None, as_json: bool) -> None:
    """Show how much room the versions of all models take.

    Prints the number of versions, the size of the files, of the distinct tensors in them, and of the objects that
    store these, with its share of the full copies that git-lfs would keep. With --by also what a commit adds to the
    earlier ones, or what a branch, path or parameter has for itself. Only manifests are read, of all refs or of the
    revisions given.

    \b
    Example:
      git theta size
      git theta size --by branch
      git theta size --by commit main~10..main
    """
    repository = Repository()
    rooms = sizes(repository, revisions, by)
    if as_json:
        dump(groups=[_fields(room) for room in rooms[:-1]], total=_fields(rooms[-1]))
        return
    names = [*(_name(repository, room.name, by) for room in rooms[:-1]), rooms[-1].name]
    for line in columns([_cells(room, name, added=bool(by)) for room, name in zip(rooms, names, strict=True)]):
        data(line)


def _fields(room: Room) -> dict[str, object]:
    return {**dataclasses.asdict(room), "ratio": round(room.ratio, 6)}


def _name(repository: Repository, name: str, by: Grouping | None) -> str:
    """What a group is called where a person reads it."""
    if by == "commit":
        return name[:_SHORT]
    if by == "path":
        return shown(repository.relative(name))
    return spell(name) if by == "parameter" else printable(name)


def _cells(room: Room, name: str, *, added: bool) -> tuple[str, ...]:
    return (
        number(room.versions, "version"),
        f"files {amount(room.logical)}",
        f"tensors {amount(room.unique)}",
        f"stored {amount(room.stored)}",
        f"{room.ratio:.1%} of copies",
        *([f"added {amount(room.added)}"] if added else []),
        name,
    )

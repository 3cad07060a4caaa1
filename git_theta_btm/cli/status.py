"""``git theta status``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import click

from ..changes import Change, count
from ..repository import Repository
from ..status import FileStatus
from ..status import status as look
from .console import Palette, as_json, colour_option, columns, data, dump, number, shown

_COLOURS = {"staged": "green", "clean": "normal", "stub": "yellow"}  # as git status has them; all else is red


@click.command()
@colour_option
@as_json
def status(*, color: str, as_json: bool) -> None:
    """Show which models changed, and by how many parameters.

    Staged changes are those between the last commit and the index, modified ones those between the index and the
    worktree. A stub is a manifest in the place of a file; missing objects are those of the staged version.

    \b
    Example:
      git theta status
    """
    repository = Repository()
    found = look(repository)
    if as_json:
        dump(files=[_as_json(item) for item in found])
        return
    rows = [
        (state, shown(repository.relative(item.path)), _detail(item, state)) for item in found for state in item.states
    ]
    palette = Palette(color)
    for (state, _, _), line in zip(rows, columns(rows), strict=True):
        data(palette.paint(line, state, _COLOURS.get(state, "red")))


def _as_json(item: FileStatus) -> dict[str, object]:
    fields = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return fields | {side: _parameters(fields[side]) for side in ("staged", "modified")}


def _parameters(changes: Iterable[Change]) -> list[dict[str, object]]:
    return [
        {
            "name": change.name,
            "kind": change.kind,
            **{
                side: {"type": str(entry.tensor), "digest": entry.digest} if entry else None
                for side, entry in (("old", change.old), ("new", change.new))
            },
        }
        for change in changes
    ]


def _detail(item: FileStatus, state: str) -> str:
    if state == "missing":
        return f"{number(item.missing, 'object')} not here"
    if state == "broken":
        return item.problem
    if state in ("staged", "modified"):
        counts = count(item.staged if state == "staged" else item.modified)
        words = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        return f"{words or 'none changed'} of {number(item.parameters, 'parameter')}"
    return number(item.parameters, "parameter") if state == "clean" else ""

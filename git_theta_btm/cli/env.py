"""``git theta env``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from ..setup.environment import Surroundings, surroundings
from .console import as_json, data, dump, number, printable, shown, size


@click.command()
@as_json
def env(*, as_json: bool) -> None:
    """Show versions, configuration and store.

    This is what a report of a problem needs to say.

    \b
    Example:
      git theta env
    """
    found = surroundings()
    if as_json:
        dump(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})
        return
    for line in _lines(found):
        data(line)


def _lines(found: Surroundings) -> Iterator[str]:
    for name, version in found.versions.items():
        yield f"{name} {version or '(not installed)'}"
    yield f"filters {found.filter}"
    for item in found.settings:
        yield f"{item.key}={printable(item.value)} ({item.scope}, {shown(item.origin)})"
    if found.store:
        yield f"worktree {shown(found.root) if found.root else '(none)'}"
        yield f"store {shown(found.store)}: {number(found.objects, 'object')}, {size(found.objects_size)}"
        yield f"catalogue {shown(found.catalogue or '')}: {size(found.catalogue_size)}"
    for pattern in found.patterns:
        yield f"pattern {shown(pattern.pattern)} ({shown(pattern.file)})"

"""``git theta dedup``."""

from __future__ import annotations

import click

from ..care.dedup import dedup as share
from ..repository import Repository
from .console import Meter, as_json, columns, data, dump, number, say, shown, size


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@as_json
def dedup(paths: tuple[str, ...], *, as_json: bool) -> int:
    """Let model files share space on disk.

    With the model files of all worktrees of this repository, and with objects of the store that hold a parameter as it
    is. Needs a file system that can: btrfs, or xfs. The kernel compares the bytes, so no file changes, nor does what
    git knows of it. Worth it where several worktrees, or several files, have parameters in common at the same place.
    The exit code is 1 if a file was left alone, or if the file system cannot do it.

    \b
    Example:
      git theta dedup
      git theta dedup --json model.safetensors
    """
    repository = Repository()
    meter = Meter("comparing files")
    outcomes = share(repository, paths, meter)
    meter.end()
    problems = [item for item in outcomes if item.problem]
    if as_json:
        dump(files=outcomes)
        return int(bool(problems))
    rows = [(shown(repository.relative(item.path)), size(item.shared), size(item.size)) for item in outcomes]
    for line, item in zip(columns(rows), outcomes, strict=True):
        if not item.problem:
            data(line)
    for item in problems:
        say(f"theta: {shown(repository.relative(item.path))}: {item.problem}: left alone")
    total = sum(item.shared for item in outcomes)
    say(f"{size(total)} in {number(len(outcomes) - len(problems), 'file')} shared")
    return int(bool(problems))

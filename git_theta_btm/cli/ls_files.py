"""``git theta ls-files``."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

import click

from ..errors import ManifestError
from ..repository import ModelFile, Repository, read_stub
from .console import as_json, columns, data, dump, number, shown, size

_SHORT = 10  # hexadecimal digits of a digest: as many as git shows in a repository of this size
_MARKS = {"present": "*", "stub": "-", "plain": "!", "broken": "!"}


@dataclass(frozen=True, slots=True)
class Row:
    """One model file as it is listed; ``size`` in bytes is that of the file itself."""

    path: str
    state: str
    digest: str | None = None
    format: str | None = None
    parameters: int = 0
    size: int = 0


@click.command("ls-files")
@click.argument("words", nargs=-1, metavar="[REV] [PATH]...")
@click.option("-l", "--long", is_flag=True, help="Print whole digests.")
@as_json
def ls_files(words: tuple[str, ...], *, long: bool, as_json: bool) -> None:
    """List the model files of the index, or of a commit.

    Prints the digest of the version, a mark, the format, the number of parameters, the size and the path. The mark
    is * for a file that is here in full, - for one of which only the manifest is here, and ! for one that git holds
    as it is, or whose manifest is broken. A first word that names no file is taken for a revision.

    \b
    Example:
      git theta ls-files
      git theta ls-files HEAD~3 models
    """
    repository = Repository()
    # Where there is no worktree, what lies around is git's own: a file called HEAD is there always.
    first = words[0] if words else None
    revision = first if first and (repository.root is None or not os.path.lexists(first)) else None
    if revision is None and repository.root is None:
        revision = "HEAD"
        paths = words
    else:
        paths = words[revision is not None :]
    models = repository.models_of(revision, *paths) if revision else repository.models(*paths)
    rows = [_row(repository, model, committed=revision is not None) for model in models]
    if as_json:
        dump(files=rows)
        return
    for line in columns([_cells(repository, row, None if long else _SHORT) for row in rows]):
        data(line)


def _row(repository: Repository, model: ModelFile, *, committed: bool) -> Row:
    manifest = None
    with suppress(ManifestError):
        manifest = model.manifest
    if manifest is None:
        return Row(model.path, "plain" if model.text is None else "broken")
    full = not repository.missing(manifest) if committed else _is_full(repository, model.path)
    return Row(
        model.path,
        "present" if full else "stub",
        manifest.digest,
        manifest.format,
        len(manifest.entries),
        manifest.size,
    )


def _is_full(repository: Repository, path: str) -> bool:
    absolute = repository.absolute(path)
    return os.path.isfile(absolute) and read_stub(absolute) is None


def _cells(repository: Repository, row: Row, digits: int | None) -> tuple[str, ...]:
    return (
        (row.digest or "-" * (digits or 64))[:digits],
        _MARKS[row.state],
        row.format or "-",
        number(row.parameters, "parameter"),
        size(row.size),
        shown(repository.relative(row.path)),
    )

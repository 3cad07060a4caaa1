"""``git theta show``."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress

import click

from ..api import Checkpoint
from ..api import open as open_model
from ..errors import ObjectError, ThetaError, UsageError
from ..manifest import Entry, spell
from ..repository import Repository
from ..summary import Link, Statistics, chain, statistics
from ..tensor import Tensor
from .console import as_json, columns, data, dump, size

_SHORT = 10  # hexadecimal digits of a digest
_ROWS = re.compile("(-?[0-9]{1,18})?:(-?[0-9]{1,18})?")

Bounds = tuple[int | None, int | None]


@click.command()
@click.argument("word", metavar="[REV:]PATH[#PARAMETER]")
@click.option("--rows", metavar="A:B", help="Take the statistics of these rows alone.")
@as_json
def show(word: str, *, rows: str | None, as_json: bool) -> None:
    """Show the parameters of a model, or one of them.

    Prints each parameter with its type, the beginning of its digest and how it is stored; of one parameter the whole
    digest, the objects that its bytes come from, and statistics of its numbers. Without a revision it is the staged
    version. Only the objects of the one parameter are read, and of rows only the chunks that hold them.

    \b
    Example:
      git theta show model.safetensors
      git theta show HEAD~2:model.safetensors#h.0.attn.weight --rows 0:8
    """
    model, name = _find(word)
    if name is None:
        if rows is not None:
            raise UsageError("--rows needs a parameter: PATH#PARAMETER")
        _list(model, as_json=as_json)
    else:
        _one(model, model.entries[name], _bounds(rows, model.entries[name].tensor), as_json=as_json)


def _find(word: str) -> tuple[Checkpoint, str | None]:
    """The model, and the parameter if the word names one; either may have a ``#`` in its name."""
    with suppress(ThetaError):
        return open_words(word), None
    for match in re.finditer("#", word):
        path, name = word[: match.start()], word[match.end() :]
        with suppress(ThetaError):
            model = open_words(path)
            if name in model.entries:
                return model, name
    model = open_words(word.partition("#")[0])
    raise ThetaError(f"there is no parameter {spell(word.partition('#')[2])}: 'git theta show PATH' lists them")


def open_words(word: str) -> Checkpoint:
    """The model that ``[REV:]PATH`` names, as git reads it: after a colon from the root of the worktree, unless it
    begins with ``./`` or ``../``. Raises ``ThetaError``."""
    revision, colon, path = word.partition(":")
    if not colon:
        return open_model(word)
    start = "." if path.startswith(("./", "../")) else Repository().root or "."
    return open_model(path, revision or None, start)


def _bounds(rows: str | None, tensor: Tensor) -> Bounds:
    if rows is None:
        return None, None
    match = _ROWS.fullmatch(rows)
    if not match:
        raise UsageError(f"{rows!r} are no rows: A:B means from row A to before row B")
    start, stop = (int(word) if word else None for word in match.groups())
    if not tensor.shape or not range(tensor.shape[0])[start:stop]:
        raise UsageError(f"--rows {rows}: a tensor {tensor} has no such rows")
    return start, stop


def _list(model: Checkpoint, *, as_json: bool) -> None:
    rows = [(entry, chain(model.manifest, entry)) for entry in model.entries.values()]
    if as_json:
        parameters = [_fields(entry) | {"objects": links} for entry, links in rows]
        dump(digest=model.digest, format=model.manifest.format, size=model.manifest.size, parameters=parameters)
        return
    for line in columns(
        [(entry.digest[:_SHORT], spell(entry.name), str(entry.tensor), _stored(entry, links)) for entry, links in rows]
    ):
        data(line)


def _one(model: Checkpoint, entry: Entry, bounds: Bounds, *, as_json: bool) -> None:
    links = chain(model.manifest, entry)
    problem, found = "", None
    try:
        found = statistics(model, entry.name, *bounds)
    except ObjectError:
        raise
    except ThetaError as error:  # not a kind of numbers that has statistics
        problem = str(error)
    if as_json:
        dump(**_fields(entry), objects=links, statistics=found and dataclasses.asdict(found), problem=problem or None)
        return
    data(f"{spell(entry.name)} {entry.tensor}")
    for line in columns([("digest", entry.digest), ("size", size(entry.blob.size)), *map(_link, links)]):
        data(line)
    for line in columns(_numbers(found)) if found else [problem]:
        data(line)


def _fields(entry: Entry) -> dict[str, object]:
    shape = list(entry.tensor.shape)
    return {"name": entry.name, "type": str(entry.tensor), "dtype": entry.tensor.dtype.name, "shape": shape} | {
        "digest": entry.digest,
        "size": entry.blob.size,
    }


def _stored(entry: Entry, links: list[Link]) -> str:
    if not links:
        return "in chunks" if entry.view else "empty"
    return f"{' of '.join(link.kind for link in links)}, {size(links[0].size)}"


def _link(link: Link) -> tuple[str, str]:
    return link.kind, f"{link.oid} {size(link.size)}"


def _numbers(found: Statistics) -> list[tuple[str, str]]:
    fields = dataclasses.asdict(found)
    texts = {name: f"{value:.7g}" if isinstance(value, float) else str(value) for name, value in fields.items()}
    return [(name, text) for name, text in texts.items() if fields[name] is not None]

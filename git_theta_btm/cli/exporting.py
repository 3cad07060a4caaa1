"""``git theta export`` and ``git theta import``."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

import click

from ..errors import ThetaError
from ..zarr import exporting as zarr
from ..zarr.importing import gather
from .console import number, say, size
from .show import open_words


@click.command()
@click.option("--zarr", "directory", required=True, metavar="DIR", help="The directory to make.")
@click.option(
    "--parameters", "patterns", multiple=True, metavar="GLOB", help="Only parameters that match, such as 'h.0.*'."
)
@click.argument("word", metavar="[REV:]PATH")
def export(word: str, *, directory: str, patterns: tuple[str, ...]) -> None:
    """Write the parameters of a model as a zarr group.

    Each becomes an array of zarr version 3, in chunks of 4 MiB, to be read in parts by every tool for arrays, and from
    an object store once the directory is copied there. Its file theta.json says which parameter is where, and what it
    came from. Without a revision it is the staged version. The directory must not exist.

    \b
    Example:
      git theta export --zarr legal.zarr legal:model.safetensors
    """
    model = open_words(word)
    names = [name for name in model if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not names:
        why = f"no parameter matches {' or '.join(patterns)}" if patterns else f"{word} has no parameters"
        raise ThetaError(why)
    revision, colon, path = word.partition(":")
    origin = {"version": 1, "revision": revision if colon else "", "path": path if colon else word}
    zarr.export(model, directory, names, {**origin, "format": model.manifest.format, "digest": model.digest})
    say(f"{number(len(names), 'parameter')} written, {size(sum(model.entries[name].tensor.nbytes for name in names))}")


@click.command("import")
@click.option("--zarr", "directory", required=True, metavar="DIR", help="The directory of the group.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--changed", is_flag=True, help="Take arrays that are not what was exported.")
@click.argument("path")
def import_(path: str, *, directory: str, force: bool, changed: bool) -> None:
    """Write a zarr group as a safetensors file.

    An array that git theta export wrote gets the parameter's name back and is compared with its digest; any other is
    named after its path. The file is a new one with the same tensors, and not the file that was exported.

    \b
    Example:
      git theta import --zarr legal.zarr legal.safetensors
    """
    found = gather(directory, os.path.normpath(path), force=force, changed=changed)
    say(f"{number(len(found), 'parameter')} written, {size(sum(item.tensor.nbytes for item in found))}")


globals()["import"] = import_  # a command's function has the command's name, which is a keyword here

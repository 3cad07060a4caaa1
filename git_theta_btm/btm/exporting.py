"""Exporting: a commit's model as a folder that Hugging Face's libraries load, its weights byte for byte.

An adapter that is not applied yet is put into them on the way, with the bits that applying it gives.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from ..checkout.assembling import Assembler
from ..errors import ThetaError
from ..manifest import Manifest, is_manifest, loads
from ..merging.cards import card, markdown
from ..merging.heads import commit_of
from ..remaking import new_folder
from ..repository import Repository
from ..source import FileSource
from ..store import Forgetful
from . import adapting
from .models import ModelAt
from .places import MODEL, SETTINGS
from .settings import Settings, parse
from .vocabularies import of_bytes

if TYPE_CHECKING:
    from ..adapters.edits import Recipe

_README = "README.md"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the commit, the files by name, their size in bytes, and whether an adapter is in the model that
    the commit has beside it."""

    commit: str
    files: tuple[str, ...]
    size: int
    adapted: bool = False


def export(repository: Repository, revision: str, directory: str) -> Exported:
    """Write the model of a revision to the new folder ``directory``, whole or not at all.

    A merge gets its card as ``README.md``, and a model of bytes a tokenizer of bytes. Raises ``ThetaError`` if the
    revision has no model, ``ObjectError`` if a weight is missing or corrupt.
    """
    commit = commit_of(repository.git, revision)
    files = dict(_model_files(repository, commit))
    if not files:
        raise ThetaError(f"{revision} has no {MODEL}/: 'git btm status' names the branches that have a model")
    recipes = _recipes(repository, revision)
    with new_folder(directory) as folder:
        for name, oid in files.items():
            _write(repository, oid, os.path.join(folder, name), recipes)
        for name, text in _beside(repository, commit, files).items():
            with open(os.path.join(folder, name), "x", encoding="utf-8") as file:
                file.write(text)
        written = tuple(
            sorted(
                os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names
            )
        )
        size = sum(os.path.getsize(os.path.join(folder, name)) for name in written)
    return Exported(commit, written, size, bool(recipes))


def _model_files(repository: Repository, commit: str) -> Iterator[tuple[str, str]]:
    """The regular files of the model by their names in its folder, and what git calls their content."""
    for row in repository.git.fields("ls-tree", "-r", "-z", "--full-tree", commit, "--", f"{MODEL}/"):
        meta, _, path = row.partition("\t")
        mode, _, oid = meta.split(" ")
        if mode.startswith("100"):
            yield path.removeprefix(f"{MODEL}/"), oid


def _recipes(repository: Repository, revision: str) -> Mapping[str, Recipe]:
    """What the adapter that is not applied yet makes of parameters. Raises ``ThetaError`` if that cannot be told."""
    if not adapting.beside(repository.git, revision):
        return {}
    model = ModelAt(repository, revision)
    return model.adapter.recipes(model.entries, repository.store) if model.adapter else {}


def _write(repository: Repository, oid: str, path: str, recipes: Mapping[str, Recipe]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text = repository.git.blob(oid)
    out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(out, "wb") as file:
        if is_manifest(text):
            _assemble(repository, loads(text), out, recipes, os.path.dirname(path))
        else:
            file.write(text)
            file.flush()
        os.fsync(out)


def _assemble(
    repository: Repository, manifest: Manifest, out: int, recipes: Mapping[str, Recipe], directory: str
) -> None:
    """Write a file of weights; what is stored is put together in ``directory`` first if it is not what is wanted."""
    assembler = Assembler(repository.store, Forgetful())
    mine = {entry.name: recipes[entry.name] for entry in manifest.entries if entry.name in recipes}
    if not mine:
        assembler.write(manifest, out)
        return
    from ..adapters.applying import Bench  # which needs numpy: only those who have an adapter wait for that

    with TemporaryFile(dir=directory, buffering=0) as plain:
        assembler.write(manifest, plain.fileno())
        Bench(manifest, repository.store, Forgetful()).apply(mine, FileSource(plain.fileno()), out)


def _beside(repository: Repository, commit: str, files: dict[str, str]) -> dict[str, str]:
    """What belongs to the model and is not among its files."""
    found: dict[str, str] = {}
    if _settings(repository, commit).text.tokenizer == "bytes" and not any(name in files for name in _TOKENIZERS):
        found |= {name: text for name, text in of_bytes().items() if name not in files}
    if _README not in files:
        with suppress(ThetaError):  # a commit that records no merge has no card
            found[_README] = markdown(card(repository, commit))
    return found


def _settings(repository: Repository, commit: str) -> Settings:
    try:
        return parse(tomllib.loads(repository.git.blob(f"{commit}:{SETTINGS}").decode()))
    except (ValueError, ThetaError) as error:
        raise ThetaError(f"{SETTINGS} of {commit[:12]}: {error}") from None

"""Adapted: a stored model with an adapter in it, as it would be if that were applied: computed where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from ..api import Checkpoint
from ..blobs import Opened
from ..errors import CorruptObject
from ..manifest import Digest, Entry, Manifest, spell
from ..parallel import map_threads
from ..source import BLOCK, Source
from ..store import ObjectStore

if TYPE_CHECKING:
    from ..adapters.edits import Recipe


class Adapted(Checkpoint):
    """One version of a model, some parameters of which are what ``recipes`` make of the stored ones.

    Raises ``ObjectError`` if one of these is missing or corrupt: their digests are taken at once, block by block.
    """

    def __init__(self, manifest: Manifest, store: ObjectStore, recipes: Mapping[str, Recipe]) -> None:
        self._stored, self._recipes = Checkpoint(manifest, store), recipes
        names = [name for name in self._stored.entries if name in recipes]
        made = dict(zip(names, map_threads(self._made, names), strict=True))
        entries = tuple(made.get(entry.name, entry) for entry in manifest.entries)
        super().__init__(replace(manifest, entries=entries), store)

    def source_among(self, name: str, opened: Opened) -> Source:
        """The bytes of a parameter, the adapter's part included."""
        source = self._stored.source_among(name, opened)
        return self._recipes[name].value(source) if name in self._recipes else source

    def _made(self, name: str) -> Entry:
        """A parameter with the digest that it has with the adapter in it."""
        entry, before, after = self._stored.entries[name], sha256(), sha256()
        with self._stored.source(name) as source:
            new = self._recipes[name].value(source)
            for offset in range(0, source.size, BLOCK):
                size = min(BLOCK, source.size - offset)
                before.update(source.read(offset, size))
                after.update(new.read(offset, size))
        if before.hexdigest() != entry.digest:
            raise CorruptObject(f"parameter {spell(name)}: its bytes have another SHA-256: run 'git theta fsck'")
        return replace(entry, digest=Digest(after.hexdigest()))

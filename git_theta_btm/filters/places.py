"""Places: under which objects a blob can be had, out of several that may hold it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from .. import pack
from ..errors import ObjectError
from ..manifest import Digest, Manifest, Stored
from ..store import Memory, ObjectStore, get

Lines = frozenset[Stored]
_DEEPEST = 100  # bases of bases; what this program writes stays far below


class Places:
    """Finds what must stand in a manifest's storage section for a blob to be had.

    What was made just now wins, then what the ``manifests`` say, earlier ones first, then what is remembered.
    Raises nothing: an object that is gone or broken serves for nothing. For one thread.
    """

    def __init__(self, store: ObjectStore, memory: Memory, manifests: Iterable[Manifest] = ()) -> None:
        self._store, self._memory = store, memory
        self._lines: dict[Digest, Stored] = {}
        self._found: dict[Digest, Lines] = {}
        self._searching: set[Digest] = set()
        for manifest in manifests:
            self._add(manifest)

    def _add(self, manifest: Manifest) -> None:
        for stored in manifest.objects:
            if stored.encoded:
                self._lines.setdefault(Digest(stored.rest[0]), stored)
            elif stored.kind == "pack":
                with suppress(ObjectError):
                    for digest in pack.loads(get(self._store, stored.oid, stored.size)):
                        self._lines.setdefault(digest, stored)

    def made(self, digest: Digest, stored: Stored) -> None:
        """Note an object that was made just now."""
        self._lines[digest] = stored
        self._found.clear()

    def pack(self, digest: Digest) -> Stored | None:
        """The pack that holds a small blob."""
        for stored in (self._lines.get(digest), self._memory.stored(digest)):
            if stored and stored.kind == "pack" and self._store.size(stored.oid) == stored.size:
                return stored
        return None

    def find(self, digest: Digest) -> Lines | None:
        """The object lines that a blob needs, its bases' included; None if it cannot be had.

        A small encoded object that was made just now is in no pack yet, and so its pack is not among them.
        """
        if digest not in self._found and digest not in self._searching and len(self._searching) < _DEEPEST:
            self._searching.add(digest)  # a blob that leads back to itself cannot be had that way
            lines = self._find(digest)
            self._searching.remove(digest)
            if lines is None:
                return None
            self._found[digest] = lines
        return self._found.get(digest)

    def _find(self, digest: Digest) -> Lines | None:
        for stored in (self._lines.get(digest), self._memory.stored(digest)):
            lines = self._check(stored) if stored and stored.encoded else None
            if lines is not None:
                return lines
        if held := self.pack(digest):
            return frozenset({held})
        size = self._store.size(digest)
        return None if size is None else frozenset({Stored("raw", digest, size)})

    def _check(self, stored: Stored) -> Lines | None:
        own: Lines | None = frozenset({stored})
        held = self.pack(stored.oid) if stored.packed else None
        if held:
            own = frozenset({stored, held})
        elif self._store.size(stored.oid) != stored.size:
            own = None
        parts = [own, *(self.find(Digest(base)) for base in stored.rest[1:])]
        return None if None in parts else frozenset().union(*filter(None, parts))

"""Places: under which objects a blob can be had, out of several that may hold it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from .. import pack
from ..blobs import MAX_WORK, Blobs
from ..errors import ObjectError
from ..manifest import Digest, Manifest, Stored
from ..store import Memory, ObjectStore, get

Lines = frozenset[Stored]


class Places:
    """Finds what must stand in a manifest's storage section for a blob to be had.

    What was made just now wins, then what is remembered, which was proven by decoding it once, then objects that are
    the blob itself. What the ``manifests`` say, earlier ones first, comes last: anyone may have written them.
    Raises nothing: an object that is gone or broken serves for nothing. For one thread.
    """

    def __init__(self, store: ObjectStore, memory: Memory, manifests: Iterable[Manifest] = ()) -> None:
        self._store, self._memory = store, memory
        self._made: dict[Digest, Stored] = {}
        self._packs: dict[Digest, Stored] = {}
        self._listed: dict[Digest, Stored] = {}
        self._found: dict[Digest, Lines] = {}
        self._searching: set[Digest] = set()
        self._failed: set[Digest] = set()
        for manifest in manifests:
            self._add(manifest)

    def _add(self, manifest: Manifest) -> None:
        for stored in manifest.objects:
            if stored.encoded:
                self._listed.setdefault(Digest(stored.rest[0]), stored)
            elif stored.kind == "pack":
                with suppress(ObjectError):
                    for digest, data in pack.loads(get(self._store, stored.oid, stored.size)).items():
                        if Digest.of(data) == digest:
                            self._packs.setdefault(digest, stored)

    def made(self, digest: Digest, stored: Stored) -> None:
        """Note an object that was made just now."""
        self._made[digest] = stored
        self._found.clear()

    def pack(self, digest: Digest) -> Stored | None:
        """The pack that holds a small blob."""
        for stored in (self._made.get(digest), self._packs.get(digest), self._memory.stored(digest)):
            if stored and stored.kind == "pack" and self._store.size(stored.oid) == stored.size:
                return stored
        return None

    def find(self, digest: Digest) -> Lines | None:
        """The object lines that a blob needs, its bases' included; None if it cannot be had.

        A small encoded object that was made just now is in no pack yet, and so its pack is not among them.
        """
        if digest in self._found:
            return self._found[digest]
        if digest in self._searching or digest in self._failed or len(self._searching) > MAX_WORK:
            return None  # a blob that leads back to itself cannot be had that way
        self._searching.add(digest)
        lines = self._find(digest)
        self._searching.remove(digest)
        if lines is None:
            self._failed.add(digest)
        else:
            self._found[digest] = lines
        if not self._searching:
            self._failed.clear()  # what failed may have done so only on the way from where the search began
        return lines

    def _find(self, digest: Digest) -> Lines | None:
        for stored in (self._made.get(digest), self._memory.stored(digest)):
            if stored and stored.encoded and (lines := self._check(stored)):
                return lines
        if held := self.pack(digest):
            return frozenset({held})
        size = self._store.size(digest)
        if size is not None:
            return frozenset({Stored("raw", digest, size)})
        listed = self._listed.get(digest)
        return self._check(listed) if listed else None

    def _check(self, stored: Stored) -> Lines | None:
        lines = {stored}
        if held := self.pack(stored.oid) if stored.packed else None:
            lines.add(held)
        elif self._store.size(stored.oid) != stored.size:
            return None
        for base in stored.rest[1:]:
            part = self.find(Digest(base))
            if part is None:
                return None
            lines |= part
        work = Blobs(lines, self._store).work(Digest(stored.rest[0]))
        return frozenset(lines) if work <= MAX_WORK else None

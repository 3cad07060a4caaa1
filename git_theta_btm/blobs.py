"""Blobs: every run of bytes that a manifest names, as a source, however it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property

from . import pack
from .errors import CorruptObject
from .manifest import Digest, Stored
from .source import BytesSource, Source
from .store import ObjectStore, get

MAX_WORK = (
    500  # decodings for one blob; what this program writes stays far below, a hostile manifest must end somewhere
)


class Blobs:
    """The blobs that a manifest's objects hold. Safe to use from many threads."""

    def __init__(self, objects: Iterable[Stored], store: ObjectStore) -> None:
        objects = tuple(objects)
        self._store = store
        self._packs = [stored for stored in objects if stored.kind == "pack"]
        self._work: dict[Digest, float] = {}
        self.lines = {Digest(stored.rest[0]): stored for stored in objects if stored.encoded}

    @cached_property
    def packed(self) -> dict[Digest, bytes]:
        """Everything in the packs. Raises ``MissingObject`` or ``CorruptObject``."""
        members: dict[Digest, bytes] = {}
        for stored in self._packs:
            members |= pack.loads(get(self._store, stored.oid, stored.size))
        return members

    @contextmanager
    def open(self, digest: Digest) -> Iterator[Source]:
        """A blob's bytes, which are not checked. Raises ``MissingObject`` or ``CorruptObject``."""
        with ExitStack() as stack:
            yield self._open(digest, stack)

    def _open(self, digest: Digest, stack: ExitStack) -> Source:
        line = self.lines.get(digest)
        if line is None:
            return self.open_object(digest, stack)
        if self.work(digest) > MAX_WORK:
            raise CorruptObject(f"object {line.oid} is built on itself, or on more than {MAX_WORK} others")
        from .encoded import Decoded  # numpy and zstandard, which raw objects never need

        bases = [self._open(Digest(base), stack) for base in line.rest[1:]]
        return Decoded(self.open_object(line.oid, stack), bases)

    def open_object(self, oid: Digest, stack: ExitStack) -> Source:
        """An object's own bytes, from the store or from a pack."""
        if oid in self.packed:
            return BytesSource(self.packed[oid])
        return stack.enter_context(self._store.open(oid))

    def holds(self, digest: Digest) -> bool:
        """Whether the blob is one of these already."""
        return digest in self.lines or digest in self.packed or self._store.size(digest) is not None

    def bases(self, digest: Digest) -> list[Digest]:
        """The blobs that a blob is stored in terms of."""
        line = self.lines.get(digest)
        return [Digest(base) for base in line.rest[1:]] if line else []

    def closure(self, digests: Iterable[Digest]) -> list[Digest]:
        """``digests``, their bases, the bases of those, and so on, each once."""
        found: dict[Digest, None] = {}
        waiting = list(digests)
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found[digest] = None
                waiting += self.bases(digest)
        return list(found)

    def work(self, digest: Digest) -> float:
        """How many decodings reading a blob takes; 0 for one that is stored as it is, infinite if it needs itself."""
        if digest not in self.lines:
            return 0
        if digest not in self._work:
            self._work[digest] = float("inf")  # what a blob that leads back here is told
            with suppress(RecursionError):
                self._work[digest] = 1 + sum(map(self.work, self.bases(digest)))
        return self._work[digest]

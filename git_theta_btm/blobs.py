"""Blobs: every run of bytes that a manifest names, as a source, however it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from math import inf

from . import pack
from .errors import CorruptObject, ObjectError
from .manifest import Digest, Stored
from .source import BytesSource, Source
from .store import ObjectStore, get

MAX_WORK = 100  # decodings for one blob, and its bases: they nest four calls deep, with an open file each per thread


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
            raise CorruptObject(f"blob {digest} is built on itself, or on more than {MAX_WORK} others")
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
        if digest in self.lines or self._store.size(digest) is not None:
            return True
        with suppress(ObjectError):  # a pack that is not here holds nothing
            return digest in self.packed
        return False

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
        """How many decodings reading a blob takes: 0 for one that is stored as it is, infinite above ``MAX_WORK``."""
        waiting, entered = [digest], set[Digest]()
        while waiting:
            blob = waiting[-1]
            if blob in self._work:
                waiting.pop()
            elif blob in entered:  # again, from above or from below: a base that is unknown still is built on it
                self._work[blob] = self._work_of(blob)
            else:
                entered.add(blob)
                waiting += self.bases(blob)
        return self._work[digest]

    def _work_of(self, digest: Digest) -> float:
        if digest not in self.lines:
            return 0
        bases = self.bases(digest)
        total = max(1 + sum(self._work.get(base, inf) for base in bases), len(bases))
        return total if total <= MAX_WORK else inf

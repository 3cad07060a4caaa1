"""Blobs: every run of bytes that a manifest names, as a source, however it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

from . import pack
from .errors import CorruptObject, MissingObject, ObjectError
from .manifest import Digest, Stored
from .source import BytesSource, Source
from .store import ObjectStore, get

if TYPE_CHECKING:
    from .encoded import Decoded

MAX_WORK = 100  # decodings for one blob, and its bases: they nest four calls deep, with an open file each per thread


class Opened(ExitStack):
    """Blobs that are open together, of one or of several ``Blobs``. What several of them are built on is open once, and
    is decoded once where they are read side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded: dict[Digest, Decoded] = {}


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
        with Opened() as opened:
            yield self.open_among(digest, opened)

    def open_among(self, digest: Digest, opened: Opened) -> Source:
        """The same beside what is open already, until all of it is closed."""
        line = self.lines.get(digest)
        if line is None:
            return self.open_object(digest, opened)
        if source := opened.decoded.get(digest):
            source.share()
            return source
        if self.work(digest) > MAX_WORK:
            raise CorruptObject(f"blob {digest} is built on itself, or on more than {MAX_WORK} others")
        from .encoded import Decoded  # numpy and zstandard, which raw objects never need

        bases = [self.open_among(Digest(base), opened) for base in line.rest[1:]]
        opened.decoded[digest] = Decoded(self.open_object(line.oid, opened), bases)
        return opened.decoded[digest]

    def open_object(self, oid: Digest, stack: ExitStack) -> Source:
        """An object's own bytes, from the store or else from a pack, which may not be here if little was fetched."""
        with suppress(MissingObject):
            return stack.enter_context(self._store.open(oid))
        if oid in self.packed:
            return BytesSource(self.packed[oid])
        raise MissingObject(f"object {oid} is not in the store")

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

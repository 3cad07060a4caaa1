"""Verify: whether blobs have the bytes that their digests promise."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import sha256

from xxhash import xxh3_128

from ..blobs import MAX_WORK, Blobs
from ..errors import CorruptObject
from ..manifest import Blob, Digest, Stored
from ..source import BLOCK, Source, view
from ..store import Known, Memory
from ..tensor import MAX_BYTES


class Verifier:
    """Compares blobs with their digests, by the fast hash of their objects where that is remembered.

    A blob's bases are looked at only if it is wrong: ``Blobs.closure`` names them. Safe to use from many threads.
    """

    def __init__(self, blobs: Blobs, memory: Memory, limit: int = MAX_BYTES) -> None:
        """No blob, and so no base, has more than ``limit`` bytes: an object of a megabyte can claim terabytes."""
        self._blobs, self._memory, self._limit = blobs, memory, limit

    def verify(self, digest: Digest, size: int | None = None) -> None:
        """Raise ``CorruptObject`` unless the blob has these bytes, ``MissingObject`` if it is not there."""
        if line := self._blobs.lines.get(digest):
            self._encoded(line, size)
        else:
            with ExitStack() as stack:
                self._same(self._blobs.open_object(digest, stack), digest, size)

    def _encoded(self, line: Stored, size: int | None) -> None:
        digest = Digest(line.rest[0])
        proven = self._memory.stored(digest) == line  # it was decoded once: its object only has to be the same still
        try:
            with self._blobs.open(digest) as source:
                fits = source.size <= self._limit if size is None else source.size == size
                if not fits or not (proven or _digest(source) == digest):
                    raise CorruptObject(f"it is not {digest}")
        except CorruptObject as error:
            self._blame(digest)
            raise CorruptObject(f"object {line.oid} is corrupt: {error}") from None
        if proven:
            with ExitStack() as stack:
                self._same(self._blobs.open_object(line.oid, stack), line.oid, line.size)
        else:
            self._memory.learn_stored([(digest, line)])

    def _blame(self, digest: Digest) -> None:
        """Raise the error of the deepest base that is wrong itself, if one is."""
        if self._blobs.work(digest) <= MAX_WORK:
            for base in reversed(self._blobs.closure(self._blobs.bases(digest))):
                self.verify(base)

    def _same(self, source: Source, digest: Digest, size: int | None) -> None:
        if size is not None and source.size != size:
            raise CorruptObject(f"object {digest} is corrupt: it has {source.size} bytes, not {size}")
        known = self._memory.fingerprint(digest)
        if known and known == self._fingerprint(source):
            return
        if _digest(source) != digest:
            raise CorruptObject(f"object {digest} is corrupt: its bytes have another SHA-256")
        if source.size > BLOCK:  # for less, the cryptographic hash is as good as free
            self._memory.learn([Known(Blob(digest, source.size), self._fingerprint(source))])

    def _fingerprint(self, source: Source) -> bytes:
        fingerprint = xxh3_128(seed=self._memory.seed)
        buffer = memoryview(bytearray(min(BLOCK, source.size)))
        for offset in range(0, source.size, BLOCK):
            block = buffer[: source.size - offset]
            source.readinto(offset, block)
            fingerprint.update(block)
        return fingerprint.digest()


def _digest(source: Source) -> str:
    digest, step = sha256(), 4 * BLOCK  # whole chunks: an encoded object decodes no less at a time
    for offset in range(0, source.size, step):
        digest.update(view(source, offset, min(step, source.size - offset)))
    return digest.hexdigest()

"""Identify: which blob a range of a file is, storing it on the way if it is new."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from xxhash import xxh3_128

from ..manifest import Blob, Digest
from ..source import BLOCK, Source
from ..store import Known, Memory, ObjectStore

_SAMPLE = 4096  # bytes read at each of three places; weights that differ at all nearly always differ there


class Identifier:
    """Names ranges of one file. Safe to use from many threads; ``learned`` collects what each pass taught.

    A range of up to ``BLOCK`` bytes is read once. A longer one is read twice only if its sample is known and its
    fingerprint is not: else one pass fingerprints it (it is stored already) or hashes and writes it (it is new).
    """

    def __init__(self, source: Source, store: ObjectStore, memory: Memory) -> None:
        self._source, self._store, self._memory = source, store, memory
        self.learned: list[Known] = []

    def small(self, start: int, end: int) -> Blob:
        """The blob of a range that is not stored here: a small one goes into a pack, a view into a chunk."""
        digest = sha256()
        for block in self._blocks(start, end):
            digest.update(block)
        return Blob(Digest(digest.hexdigest()), end - start)

    def large(self, start: int, end: int) -> Blob:
        """The blob of a range that is an object of its own; it is in the store afterwards."""
        size = end - start
        if size <= BLOCK:
            data = self._source.read(start, size)
            fingerprint = xxh3_128(data, self._memory.seed).digest()
            return self._stored(fingerprint, size) or self._store_bytes(data, fingerprint)
        sample = self._sample(start, end)
        if self._memory.sampled(sample, size) and (blob := self._stored(self._fingerprint(start, end), size)):
            return blob
        return self._store_range(start, end, sample)

    def _stored(self, fingerprint: bytes, size: int) -> Blob | None:
        digest = self._memory.find(fingerprint, size)
        return Blob(digest, size) if digest and self._store.size(digest) == size else None

    def _store_bytes(self, data: bytes, fingerprint: bytes) -> Blob:
        with self._store.writer() as writer:
            writer.write(data)
            blob = Blob(writer.commit(), len(data))
        self.learned.append(Known(blob, fingerprint))
        return blob

    def _store_range(self, start: int, end: int, sample: bytes) -> Blob:
        fingerprint = xxh3_128(seed=self._memory.seed)
        with self._store.writer() as writer:
            for block in self._blocks(start, end):
                fingerprint.update(block)
                writer.write(block)
            blob = Blob(writer.commit(), end - start)
        self.learned.append(Known(blob, fingerprint.digest(), sample))
        return blob

    def _fingerprint(self, start: int, end: int) -> bytes:
        fingerprint = xxh3_128(seed=self._memory.seed)
        for block in self._blocks(start, end):
            fingerprint.update(block)
        return fingerprint.digest()

    def _sample(self, start: int, end: int) -> bytes:
        places = (start, (start + end) // 2, end - _SAMPLE)
        return xxh3_128(b"".join(self._source.read(at, _SAMPLE) for at in places), self._memory.seed).digest()

    def _blocks(self, start: int, end: int) -> Iterator[memoryview]:
        """The range in blocks of one buffer, which is overwritten by the next."""
        buffer = memoryview(bytearray(min(BLOCK, end - start)))
        for offset in range(start, end, BLOCK):
            block = buffer[: min(BLOCK, end - offset)]
            self._source.readinto(offset, block)
            yield block

"""Identify: which blob a range of a file is, storing it on the way if it is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING

from xxhash import xxh3_128

from ..layout import Range
from ..manifest import Blob, Digest, Manifest, Stored
from ..source import BLOCK, Source
from ..store import Known, Memory, ObjectStore
from ..tensor import Tensor
from .places import Places

if TYPE_CHECKING:
    from .encode import Encoder

LONG = 16 << 20  # bytes from which a blob is encoded on several threads; shorter ones are encoded side by side
TINY = 2 << 20  # bytes below which encoding saves less than importing numpy costs
_SAMPLE = 4096  # bytes read at each of three places; weights that differ at all nearly always differ there


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a file's path and history say about it; each is asked only when it is needed."""

    recorded: Callable[[Digest], Manifest | None] = lambda _: None  # how a version is stored, if that is settled
    parent: Callable[[], Manifest | None] = lambda: None  # the version before this one
    mode: Callable[[], str] = lambda: "fast"  # "raw": never encode; "fast"; "small": as small as can be
    hashed: Mapping[Range, Blob] = field(default_factory=dict)  # ranges of the file that have just been hashed


def mode_of(word: str) -> str:
    """How new blobs are stored where the attribute ``theta-store`` has this value: what is no mode is ``fast``."""
    return word if word in ("raw", "small") else "fast"


class Identifier:
    """Names ranges of one file. Safe to use from many threads.

    Of a long range a sample is read first: only if that is known is the range fingerprinted. What is new is hashed,
    encoded and written in one more pass. ``learned`` and ``stored`` collect what that taught.
    """

    def __init__(self, source: Source, store: ObjectStore, memory: Memory, surroundings: Surroundings) -> None:
        self._source, self._store, self._memory, self._surroundings = source, store, memory, surroundings
        self._places = Places(store, memory)
        self._lock = Lock()
        self._encoders: list[Encoder | None] = []
        self.parent: Manifest | None = None
        self.learned: list[Known] = []
        self.stored: dict[Digest, Stored] = {}

    def small(self, start: int, end: int) -> Blob:
        """The blob of a range that is not stored here: a small one goes into a pack, a view into a chunk."""
        digest = sha256()
        for block in self._blocks(start, end):
            digest.update(block)
        return Blob(Digest(digest.hexdigest()), end - start)

    def known(self, start: int, end: int) -> Blob | None:
        """The blob of a range, if it is stored already."""
        size = end - start
        if blob := self._surroundings.hashed.get((start, end)):
            return self._if_stored(blob)
        if size > BLOCK and not self._memory.sampled(sample(self._source, start, end, self._memory.seed), size):
            return None
        fingerprint = xxh3_128(seed=self._memory.seed)
        for block in self._blocks(start, end):
            fingerprint.update(block)
        digest = self._memory.find(fingerprint.digest(), size)
        return self._if_stored(Blob(digest, size)) if digest else None

    def _if_stored(self, blob: Blob) -> Blob | None:
        with self._lock:
            return blob if self._places.find(blob.digest) is not None else None

    def store(self, start: int, end: int, tensor: Tensor | None = None, name: str = "") -> Blob:
        """The blob of a range that is not stored yet; it is afterwards."""
        encoder = self.encoder()
        encoding = encoder.encode(start, end, tensor, name) if encoder else None
        if encoding is None:
            return self.store_raw(start, end)
        self.learned += filter(None, (encoding.known, encoding.whole))
        if encoding.stored:
            self.stored[encoding.known.blob.digest] = encoding.stored
        return encoding.known.blob

    def never_encode(self) -> None:
        """Store raw whatever is new."""
        self._encoders = [None]

    def encoder(self) -> Encoder | None:
        """What encodes new blobs, or None if they are to be raw.

        Made when the first one turns up: importing numpy takes longer than all that an unchanged file needs.
        """
        with self._lock:
            if not self._encoders:
                mode = self._surroundings.mode()
                self._encoders.append(None if mode == "raw" else self._new_encoder(mode))
            return self._encoders[0]

    def _new_encoder(self, mode: str) -> Encoder:
        from ..blobs import Blobs
        from .encode import Encoder, Scribe

        self.parent = self._surroundings.parent()
        blobs = Blobs(self.parent.objects if self.parent else (), self._store)
        return Encoder(Scribe(self._source, blobs, self._store, self._memory), self.parent, mode)

    def store_raw(self, start: int, end: int) -> Blob:
        """The same, as an object that is the blob."""
        fingerprint = xxh3_128(seed=self._memory.seed)
        with self._store.writer() as writer:
            for block in self._blocks(start, end):
                fingerprint.update(block)
                writer.write(block)
            blob = Blob(writer.commit(), end - start)
        self.learned.append(Known(blob, fingerprint.digest(), sample(self._source, start, end, self._memory.seed)))
        return blob

    def _blocks(self, start: int, end: int) -> Iterator[memoryview]:
        """The range in blocks of one buffer, which is overwritten by the next."""
        buffer = memoryview(bytearray(min(BLOCK, end - start)))
        for offset in range(start, end, BLOCK):
            block = buffer[: min(BLOCK, end - offset)]
            self._source.readinto(offset, block)
            yield block


def sample(source: Source, start: int, end: int, seed: int) -> bytes:
    """A hash of a few places in a long range: another sample is another blob. Empty for a range of up to ``BLOCK``."""
    if end - start <= BLOCK:
        return b""
    places = (start, (start + end) // 2, end - _SAMPLE)
    return xxh3_128(b"".join(source.read(at, _SAMPLE) for at in places), seed).digest()

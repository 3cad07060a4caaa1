"""Objects by the SHA-256 of their bytes, and what is remembered about them.

An object appears whole or not at all, is never changed, and is written by whoever comes first: two writers of the same
object both succeed. ``ObjectStore`` and ``Memory`` are all that the operations know of the world.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from .errors import CorruptObject, MissingObject
from .manifest import Blob, Digest, Stored
from .source import BytesSource, FileSource, Source

_STALE = 24 * 3600.0  # seconds after which a temporary file belongs to a process that was killed


class Writer(Protocol):
    """An object being written. Leaving it without ``commit`` leaves nothing behind."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""

    def commit(self) -> Digest:
        """Make the object appear under the SHA-256 of what was written, its bytes on disk first, and name it."""


class ObjectStore(Protocol):
    """Where objects live."""

    def size(self, oid: Digest) -> int | None:
        """Length of an object in bytes, or None if it is not here."""

    @contextmanager
    def open(self, oid: Digest) -> Iterator[Source]:
        """Read an object. Raises ``MissingObject``."""

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Write an object."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a pass over a blob taught: its identity and the fast hashes it is recognised by next time."""

    blob: Blob
    fingerprint: bytes
    sample: bytes = b""


class Memory(Protocol):
    """What is remembered from earlier passes. It is a cache: an empty one is always right, only slower."""

    seed: int

    def sampled(self, sample: bytes, size: int) -> bool:
        """Whether some known blob of ``size`` bytes has this sample; if not, the blob is certainly new."""

    def find(self, fingerprint: bytes, size: int) -> Digest | None:
        """The digest of the blob with this fingerprint."""

    def fingerprint(self, digest: Digest) -> bytes | None:
        """The fingerprint of a known blob."""

    def learn(self, known: Iterable[Known]) -> None:
        """Remember blobs."""

    def stored(self, digest: Digest) -> Stored | None:
        """The object that holds a blob which is not an object of its own."""

    def learn_stored(self, places: Iterable[tuple[Digest, Stored]]) -> None:
        """Remember which object holds a blob."""


class DiskStore:
    """Objects as read-only files ``objects/aa/bb/<oid>`` below ``root``; new ones grow in ``root/tmp``.

    An object has its name only when it is whole. Whether it is on the disk by then is asked of ``durable``: git does
    not wait for the disk for its own loose objects either, unless it is told to, and to wait takes three times as long
    as all the rest of a ``git add``. What a power cut then takes is noticed by its size or digest.
    """

    def __init__(self, root: str, durable: Callable[[], bool] = lambda: False) -> None:
        self.root, self.durable = root, durable

    def path(self, oid: Digest) -> str:
        return os.path.join(self.root, "objects", oid[:2], oid[2:4], oid)

    def size(self, oid: Digest) -> int | None:
        try:
            return os.stat(self.path(oid)).st_size
        except FileNotFoundError:
            return None

    def __iter__(self) -> Iterator[Digest]:
        for _, directories, names in os.walk(os.path.join(self.root, "objects")):
            directories.sort()
            yield from map(Digest, sorted(name for name in names if len(name) == 64))

    @contextmanager
    def open(self, oid: Digest) -> Iterator[FileSource]:
        try:
            fd = os.open(self.path(oid), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MissingObject(f"object {oid} is not in the store") from None
        try:
            yield FileSource(fd)
        finally:
            os.close(fd)

    @contextmanager
    def writer(self) -> Iterator[DiskWriter]:
        directory = os.path.join(self.root, "tmp")
        os.makedirs(directory, exist_ok=True)
        writer = DiskWriter(self, os.path.join(directory, f"{os.getpid()}-{os.urandom(8).hex()}"))
        try:
            yield writer
        finally:
            writer.close()

    def sweep(self) -> None:
        """Remove what processes left that were killed more than a day ago."""
        directory = os.path.join(self.root, "tmp")
        with suppress(FileNotFoundError):
            for entry in os.scandir(directory):
                with suppress(OSError):  # another process sweeps too
                    if entry.stat().st_mtime < time.time() - _STALE:
                        os.unlink(entry.path)


class DiskWriter:
    """Hashes while it writes; the file gets its name only when it is whole."""

    def __init__(self, store: DiskStore, temporary: str) -> None:
        self._store, self._temporary, self._hash = store, temporary, sha256()
        self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def commit(self) -> Digest:
        oid = Digest(self._hash.hexdigest())
        path = self._store.path(oid)
        if self._store.size(oid) != os.fstat(self._fd).st_size:  # a copy that was cut short is replaced
            if self._store.durable():
                os.fsync(self._fd)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(self._temporary, path)
        return oid

    def close(self) -> None:
        os.close(self._fd)
        with suppress(FileNotFoundError):  # it has been renamed
            os.unlink(self._temporary)


class MemoryStore:
    """Objects in a dictionary: for tests and for programs that never touch a disk."""

    def __init__(self) -> None:
        self.objects: dict[Digest, bytes] = {}

    def size(self, oid: Digest) -> int | None:
        return len(self.objects[oid]) if oid in self.objects else None

    @contextmanager
    def open(self, oid: Digest) -> Iterator[BytesSource]:
        if oid not in self.objects:
            raise MissingObject(f"object {oid} is not in the store")
        yield BytesSource(self.objects[oid])

    @contextmanager
    def writer(self) -> Iterator[MemoryWriter]:
        yield MemoryWriter(self)


class MemoryWriter:
    """Collects one object."""

    def __init__(self, store: MemoryStore) -> None:
        self._store, self._data = store, bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._data += data

    def commit(self) -> Digest:
        oid = Digest.of(bytes(self._data))
        self._store.objects[oid] = bytes(self._data)
        return oid


class Forgetful:
    """A memory for one process: what it learns is gone with it."""

    def __init__(self) -> None:
        self.seed = 0
        self._digests: dict[tuple[bytes, int], Digest] = {}
        self._fingerprints: dict[Digest, bytes] = {}
        self._samples: set[tuple[bytes, int]] = set()
        self._holders: dict[Digest, Stored] = {}

    def sampled(self, sample: bytes, size: int) -> bool:
        return (sample, size) in self._samples

    def find(self, fingerprint: bytes, size: int) -> Digest | None:
        return self._digests.get((fingerprint, size))

    def fingerprint(self, digest: Digest) -> bytes | None:
        return self._fingerprints.get(digest)

    def learn(self, known: Iterable[Known]) -> None:
        for item in known:
            self._digests[item.fingerprint, item.blob.size] = item.blob.digest
            self._fingerprints[item.blob.digest] = item.fingerprint
            self._samples.add((item.sample, item.blob.size))

    def stored(self, digest: Digest) -> Stored | None:
        return self._holders.get(digest)

    def learn_stored(self, places: Iterable[tuple[Digest, Stored]]) -> None:
        self._holders.update(places)


def put(store: ObjectStore, data: bytes) -> Digest:
    """Store one small object."""
    with store.writer() as writer:
        writer.write(data)
        return writer.commit()


def get(store: ObjectStore, oid: Digest, limit: int) -> bytes:
    """One object of at most ``limit`` bytes. Raises ``MissingObject``, and ``CorruptObject`` if its bytes are wrong."""
    with store.open(oid) as source:
        data = source.read(0, min(source.size, limit + 1))
    if Digest.of(data) != oid:
        raise CorruptObject(f"object {oid} is corrupt: its bytes have another SHA-256")
    return data

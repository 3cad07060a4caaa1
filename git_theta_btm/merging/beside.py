"""Beside: a store that can be read as it is, and written to without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from ..manifest import Digest
from ..source import Source
from ..store import ObjectStore


class Beside:
    """Another store, and the sizes of objects that were written here: their bytes are not kept."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._sizes: dict[Digest, int] = {}

    def size(self, oid: Digest) -> int | None:
        found = self._store.size(oid)
        return self._sizes.get(oid) if found is None else found

    @contextmanager
    def open(self, oid: Digest) -> Iterator[Source]:
        """Read an object of the other store. Raises ``MissingObject``."""
        with self._store.open(oid) as source:
            yield source

    @contextmanager
    def writer(self) -> Iterator[_Writer]:
        yield _Writer(self._sizes)


class _Writer:
    def __init__(self, sizes: dict[Digest, int]) -> None:
        self._sizes, self._digest, self._size = sizes, sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._size += memoryview(data).nbytes

    def commit(self) -> Digest:
        oid = Digest(self._digest.hexdigest())
        self._sizes[oid] = self._size
        return oid

"""The Python interface: the parameters of a stored model as NumPy arrays, each read when it is asked for.

Nothing is checked out, and only the objects of what is asked for are read; of a slice, only the chunks that hold it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING

from .arrays import array, numpy_type, rows
from .blobs import Blobs, Opened
from .care.versions import located
from .changes import Change
from .changes import diff as differences
from .errors import CorruptObject, FormatError, ManifestError, MissingObject, ThetaError
from .formats.safetensors import MAX_HEADER
from .layout import Layout, segments
from .manifest import Digest, Entry, Manifest, is_manifest, loads, spell
from .repository import Repository
from .source import BytesSource, Part, Source, check_range
from .store import ObjectStore

if TYPE_CHECKING:
    from .arrays import Array


def open(path: str, rev: str | None = None, repository: str = ".") -> Checkpoint:
    """The model at ``path``, which is relative to ``repository``, in a revision, or in the index if there is none.

    Raises ``ThetaError`` if there is no such revision or file, or if git does not store it parameter by parameter.
    """
    found = Repository(repository)
    if rev is None and found.root is None:
        rev = "HEAD"
    name = f"{rev or ''}:{located(found, path)}"
    oid = found.git.oid(name)
    if not oid:
        if rev is not None and not found.git.tree(rev):
            raise ThetaError(f"there is no revision {rev!r}")
        raise ThetaError(f"there is no file {path!r} in {rev or 'the index'}")
    text = found.git.blob(oid)
    if not is_manifest(text):
        raise ThetaError(f"{path} is not stored parameter by parameter in {rev or 'the index'}")
    try:
        return Checkpoint(loads(text), found.store)
    except ManifestError as error:
        raise type(error)(f"{path} in {rev or 'the index'}: {error}") from None


class Checkpoint(Mapping[str, "Array"]):
    """One version of a model: its parameters by name, as read-only arrays. Safe to use from many threads.

    An array is read from the store each time it is asked for, and compared with its digest. Two are equal if they have
    the same digest; no weight is read for that.
    """

    def __init__(self, manifest: Manifest, store: ObjectStore) -> None:
        self.manifest = manifest
        self.entries: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in manifest.entries})
        self.blobs = Blobs(manifest.objects, store)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Checkpoint) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> Digest:
        """What names this version of the file on every machine."""
        return self.manifest.digest

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The texts in a safetensors header; other formats have none. Raises ``ObjectError``, and ``ManifestError`` if
        the file is not what its manifest says."""
        if self.manifest.format != "safetensors":
            return MappingProxyType({})
        try:
            length = int.from_bytes(self.file.read(0, 8), "little")
            header = json.loads(self.file.read(8, min(length, MAX_HEADER)))
            return MappingProxyType({str(name): str(text) for name, text in header.get("__metadata__", {}).items()})
        except (FormatError, ValueError, AttributeError, RecursionError):
            raise ManifestError("a manifest that says safetensors of what is none") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Array:
        """A whole parameter. Raises ``KeyError``, ``ObjectError`` if it is not here or corrupt, and ``ThetaError`` if
        NumPy has no such type."""
        tensor = self.entries[name].tensor
        with naming(name):
            numpy_type(tensor.dtype.name)  # before anything is read
            return array(self.raw(name), tensor)

    def raw(self, name: str) -> bytes:
        """The bytes of a parameter, of whatever type. Raises ``KeyError``, and ``ObjectError`` as above."""
        with naming(name), self.source(name) as source:
            data = source.read(0, source.size)
            if Digest.of(data) != self.entries[name].digest:
                raise CorruptObject("its bytes have another SHA-256: run 'git theta fsck'")
            return data

    def slice(self, name: str, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop`` of a parameter, with the meaning that a slice of a list has.

        A part cannot be compared with the digest of the whole. Raises what ``[]`` raises, and ``ThetaError`` for a
        parameter without rows.
        """
        with naming(name), self.source(name) as source:
            part, offset = rows(self.entries[name].tensor, start, stop)
            return array(source.read(offset, part.nbytes), part)

    def diff(self, other: Checkpoint) -> list[Change]:
        """The parameters that differ from here to ``other``, in natural order of their names; no weight is read."""
        return differences(self.manifest, other.manifest)

    @contextmanager
    def source(self, name: str) -> Iterator[Source]:
        """The bytes of a parameter, to be read in any order. Raises ``KeyError`` and ``ObjectError``."""
        with Opened() as opened:
            with naming(name):  # not what goes wrong while it is open: that may be about another
                source = self.source_among(name, opened)
            yield source

    def source_among(self, name: str, opened: Opened) -> Source:
        """The same beside what is open already, until all of it is closed."""
        entry = self.entries[name]
        if not entry.tensor.nbytes:
            return BytesSource(b"")
        if entry.view:
            return Part(self.file, self._offsets[name], entry.tensor.nbytes)
        source = self.blobs.open_among(entry.digest, opened)
        if source.size != entry.tensor.nbytes:
            raise CorruptObject(f"{source.size} bytes instead of {entry.tensor.nbytes}")
        return source

    @cached_property
    def _layout(self) -> Layout:
        with self.blobs.open(self.manifest.layout.digest) as source:
            return Layout.loads(source.read(0, source.size))

    @cached_property
    def _offsets(self) -> dict[str, int]:
        return dict(zip(self.entries, self._layout.offsets, strict=True))

    @cached_property
    def file(self) -> Source:
        """The file itself, put together as far as it is read."""
        return _File(self.manifest, self._layout, self.blobs)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors about a parameter, named, with what helps where an object is not here."""
    try:
        yield
    except ThetaError as error:
        if str(error).startswith("parameter "):
            raise
        remedy = ": 'git theta fetch REMOTE REV' brings it, if it is there" if isinstance(error, MissingObject) else ""
        raise type(error)(f"parameter {spell(name)}: {error}{remedy}") from None


class _File:
    """The file itself as a source, put together from its segments as far as it is read."""

    def __init__(self, manifest: Manifest, layout: Layout, blobs: Blobs) -> None:
        self.size = manifest.size
        self._pieces = segments(manifest, layout)
        self._starts = list(accumulate((piece.size for piece in self._pieces), initial=0))
        self._blobs = blobs

    def read(self, offset: int, size: int) -> bytes:
        check_range(offset, size, self.size)
        return b"".join(self._read(offset, offset + size))

    def _read(self, start: int, end: int) -> Iterator[bytes]:
        index = bisect_right(self._starts, start) - 1
        while start < end:
            piece, at = self._pieces[index], self._starts[index]
            low, high = start - at, min(end - at, piece.size)
            if piece.blob is None:
                yield piece.glue[low:high]
            else:
                with self._blobs.open(piece.blob.digest) as source:
                    yield source.read(low, high - low)
            start, index = at + high, index + 1

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

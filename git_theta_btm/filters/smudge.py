"""Smudge: a manifest and the objects it names become the file again.

Every object is checked before the first byte goes out, so a file is written whole and right, or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from ..blobs import Blobs
from ..errors import MissingObject, ObjectError
from ..layout import Layout, Segment, segments
from ..manifest import Digest, Manifest, spell
from ..parallel import WORKERS, keep_freed_memory, map_threads, stream_threads
from ..source import BLOCK, Data, FileSource, view, write_all
from ..store import Memory, ObjectStore
from .verify import Verifier

_PART = 4 << 20  # bytes decoded at a time: one chunk of an encoded object

Pour = Callable[[int], None]  # writes the file to a descriptor
Part = tuple[Segment, int]  # a segment and the offset in it from which ``_PART`` bytes are to be written


def smudge(manifest: Manifest, store: ObjectStore, memory: Memory) -> Pour:
    """Check everything that the file is made of, and return what writes it.

    Raises ``MissingObject`` or ``CorruptObject`` naming the parameter, ``ManifestError`` if the layout does not fit.
    """
    blobs = present(manifest, store)
    verify(manifest, blobs, memory)
    pieces = cut(manifest, blobs)
    return lambda out: _pour(pieces, blobs, out)


def present(manifest: Manifest, store: ObjectStore) -> Blobs:
    """The blobs of a manifest. Raises ``MissingObject``, naming the parameter, unless all of its objects are here."""
    missing = [blob.digest for blob in manifest.needs() if store.size(blob.digest) is None]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingObject(f"{owners(manifest)[missing[0]]}: object {missing[0]} is not in the store{more}")
    blobs = Blobs(manifest.objects, store)
    if blobs.lines:
        keep_freed_memory()
    return blobs


def cut(manifest: Manifest, blobs: Blobs) -> list[Segment]:
    """The file in segments, by a layout that has been verified. Raises ``ManifestError`` if it does not fit."""
    with blobs.open(manifest.layout.digest) as source:
        layout = Layout.loads(source.read(0, source.size))
    return segments(manifest, layout)


def owners(manifest: Manifest) -> dict[Digest, str]:
    """What to call each blob and each object of a manifest in a message."""
    names = {blob.digest: "chunk" for blob in manifest.chunks}
    names |= {entry.digest: f"parameter {spell(entry.name)}" for entry in reversed(manifest.entries) if not entry.view}
    names[manifest.layout.digest] = "layout"
    for stored in manifest.objects:
        owner = Digest(stored.rest[0]) if stored.encoded else stored.oid
        names.setdefault(stored.oid, names.get(owner, "pack" if stored.kind == "pack" else "base"))
    return names


def verify(manifest: Manifest, blobs: Blobs, memory: Memory, digests: Iterable[Digest] | None = None) -> None:
    """Raise ``CorruptObject`` or ``MissingObject``, naming the parameter, unless every blob has the right bytes, or
    those of ``digests`` have."""
    sizes = {blob.digest: blob.size for blob in manifest.blobs()}
    verifier = Verifier(blobs, memory, max([_PART, *sizes.values()]))

    def one(digest: Digest) -> None:
        try:
            verifier.verify(digest, sizes.get(digest))
        except ObjectError as error:
            raise type(error)(f"{owners(manifest).get(digest, 'base')}: {error}") from None

    map_threads(one, blobs.closure(sizes if digests is None else digests))


def _pour(pieces: list[Segment], blobs: Blobs, out: int) -> None:
    """Write the file: decoded parts by several threads ahead of the writer, whole objects by the kernel."""
    workers = WORKERS if blobs.lines else 1
    for segment, data in stream_threads(lambda part: _decode(part, blobs), _parts(pieces, blobs), workers):
        if data is not None:
            write_all(out, data)
        elif segment.blob:
            _send(segment.blob.digest, blobs, out)


def _parts(pieces: list[Segment], blobs: Blobs) -> Iterator[Part]:
    for segment in pieces:
        decoded = segment.blob and segment.blob.digest in blobs.lines
        for offset in range(0, segment.size, _PART) if decoded else (0,):
            yield segment, offset


def _decode(part: Part, blobs: Blobs) -> tuple[Segment, Data | None]:
    segment, offset = part
    if segment.blob is None:
        return segment, segment.glue
    if segment.blob.digest in blobs.lines:
        with blobs.open(segment.blob.digest) as source:
            return segment, view(source, offset, min(_PART, segment.size - offset))
    return segment, blobs.packed.get(segment.blob.digest)


def _send(digest: Digest, blobs: Blobs, out: int) -> None:
    """Write a raw object, without a copy into this process where the kernel can."""
    with blobs.open(digest) as source:
        position = 0
        if isinstance(source, FileSource):
            with suppress(OSError):  # not every pair of descriptors can do it; what is left is copied
                while position < source.size:
                    position += os.sendfile(out, source.fd, position, source.size - position)
        while position < source.size:
            position += write_all(out, source.read(position, min(BLOCK, source.size - position)))

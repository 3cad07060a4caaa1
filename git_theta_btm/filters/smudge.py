"""Smudge: a manifest and the objects it names become the file again.

Every object is checked before the first byte goes out, so a file is written whole and right, or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256

from xxhash import xxh3_128

from .. import pack
from ..errors import CorruptObject, ManifestError, MissingObject
from ..layout import Layout, segments
from ..manifest import Blob, Digest, Manifest, spell
from ..parallel import map_threads
from ..source import BLOCK, FileSource, Source, write_all
from ..store import Known, Memory, ObjectStore, get

Piece = bytes | Blob  # literal bytes, or an object that is one


def smudge(manifest: Manifest, store: ObjectStore, memory: Memory) -> list[Piece]:
    """The file in pieces, all of them checked.

    Raises ``MissingObject`` or ``CorruptObject`` naming the parameter, ``ManifestError`` if the layout does not fit.
    """
    owners = _owners(manifest)
    missing = [blob for blob in manifest.needs() if store.size(blob.digest) is None]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingObject(f"{owners[missing[0].digest]}: object {missing[0].digest} is not in the store{more}")
    map_threads(_Checker(store, memory, owners), [blob for blob in manifest.blobs() if not blob.packed])
    packed = _packed(manifest, store, owners)
    return list(_pieces(manifest, _layout(manifest, store, packed), packed))


def _owners(manifest: Manifest) -> dict[Digest, str]:
    """What to call each object in a message."""
    names = {blob.digest: "chunk" for blob in manifest.chunks}
    names |= {stored.oid: stored.kind for stored in manifest.objects}
    names |= {entry.digest: f"parameter {spell(entry.name)}" for entry in reversed(manifest.entries) if not entry.view}
    return {**names, manifest.layout.digest: "layout"}


class _Checker:
    """Compares an object with its digest, by the fast hash where that is known."""

    def __init__(self, store: ObjectStore, memory: Memory, owners: dict[Digest, str]) -> None:
        self._store, self._memory, self._owners = store, memory, owners

    def __call__(self, blob: Blob) -> None:
        with self._store.open(blob.digest) as source:
            if source.size == blob.size:
                known = self._memory.fingerprint(blob.digest)
                if known and known == self._fingerprint(source):
                    return
                if self._digest(source) == blob.digest:
                    self._memory.learn([Known(blob, self._fingerprint(source))])
                    return
        raise CorruptObject(f"{self._owners[blob.digest]}: object {blob.digest} is corrupt")

    def _fingerprint(self, source: Source) -> bytes:
        fingerprint = xxh3_128(seed=self._memory.seed)
        for block in _blocks(source):
            fingerprint.update(block)
        return fingerprint.digest()

    def _digest(self, source: Source) -> str:
        digest = sha256()
        for block in _blocks(source):
            digest.update(block)
        return digest.hexdigest()


def _blocks(source: Source) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(BLOCK, source.size)))
    for offset in range(0, source.size, BLOCK):
        block = buffer[: min(BLOCK, source.size - offset)]
        source.readinto(offset, block)
        yield block


def _packed(manifest: Manifest, store: ObjectStore, owners: dict[Digest, str]) -> dict[Digest, bytes]:
    """The bytes of every blob that lives in a pack, checked."""
    blobs: dict[Digest, bytes] = {}
    for stored in manifest.objects:
        if stored.kind != "pack":
            raise ManifestError(f"object kind {stored.kind[:40]!r} is unknown: it needs a newer git-theta-btm")
        try:
            blobs |= pack.loads(get(store, stored.oid, stored.size))
        except CorruptObject as error:
            raise CorruptObject(f"pack: {error}") from None
    for blob in manifest.blobs():
        if blob.packed and Digest.of(blobs.get(blob.digest, b"")) != blob.digest:
            raise CorruptObject(f"{owners[blob.digest]}: no pack of the manifest holds {blob.digest}")
    return blobs


def _layout(manifest: Manifest, store: ObjectStore, packed: dict[Digest, bytes]) -> Layout:
    blob = manifest.layout
    return Layout.loads(packed[blob.digest] if blob.packed else get(store, blob.digest, blob.size))


def _pieces(manifest: Manifest, layout: Layout, packed: dict[Digest, bytes]) -> Iterator[Piece]:
    """Segments as pieces, neighbouring literal ones joined."""
    literal: list[bytes] = []
    for segment in segments(manifest, layout):
        if segment.blob is None or segment.blob.packed:
            literal.append(packed[segment.blob.digest] if segment.blob else segment.glue)
            continue
        if literal:
            yield b"".join(literal)
            literal = []
        yield segment.blob
    if literal:
        yield b"".join(literal)


def pour(pieces: Sequence[Piece], store: ObjectStore, out: int) -> None:
    """Write the file to a descriptor: literal bytes from memory, objects by the kernel where it can."""
    for piece in pieces:
        if isinstance(piece, bytes):
            write_all(out, piece)
            continue
        with store.open(piece.digest) as source:
            position = _send(source, out)
            while position < piece.size:
                position += write_all(out, source.read(position, min(BLOCK, piece.size - position)))


def _send(source: Source, out: int) -> int:
    """Bytes that the kernel moved from a file by itself, without a copy into this process."""
    position = 0
    if isinstance(source, FileSource):
        with suppress(OSError):  # not every pair of descriptors can do it; what is left is copied
            while position < source.size:
                position += os.sendfile(out, source.fd, position, source.size - position)
    return position

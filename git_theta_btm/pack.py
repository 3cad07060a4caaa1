"""A pack: many small blobs in one object, sorted by digest, so that the same blobs make the same pack everywhere."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from .errors import CorruptObject
from .manifest import PACKED, Digest

LIMIT = 8 << 20  # bytes of blobs in one pack: a pack is read whole
_MAGIC = b"git-theta-btm pack 1\n"
_COUNT = struct.Struct("<I")
_ROW = struct.Struct("<32sI")  # SHA-256, size in bytes


def dumps(blobs: Mapping[Digest, bytes]) -> Iterator[tuple[list[Digest], bytes]]:
    """Packs of at most ``LIMIT`` bytes of blobs each, with the digests that each holds."""
    members: list[Digest] = []
    total = 0
    for digest in sorted(blobs):
        if members and total + len(blobs[digest]) > LIMIT:
            yield members, _dump(members, blobs)
            members, total = [], 0
        members.append(digest)
        total += len(blobs[digest])
    if members:
        yield members, _dump(members, blobs)


def _dump(members: list[Digest], blobs: Mapping[Digest, bytes]) -> bytes:
    rows = (_ROW.pack(bytes.fromhex(digest), len(blobs[digest])) for digest in members)
    return b"".join((_MAGIC, _COUNT.pack(len(members)), *rows, *(blobs[digest] for digest in members)))


def loads(data: bytes) -> dict[Digest, bytes]:
    """The blobs of a pack by digest. Raises ``CorruptObject``; the digests themselves are not checked here."""
    start = len(_MAGIC) + _COUNT.size
    if not data.startswith(_MAGIC) or len(data) < start:
        raise CorruptObject("not a pack of version 1")
    (count,) = _COUNT.unpack_from(data, len(_MAGIC))
    position = start + count * _ROW.size
    if position > len(data):
        raise CorruptObject("a pack that is cut short")
    blobs = {}
    for digest, size in _ROW.iter_unpack(data[start:position]):
        if size > PACKED or position + size > len(data):
            raise CorruptObject("a pack whose members do not fit")
        blobs[Digest(digest.hex())] = data[position : position + size]
        position += size
    if position != len(data) or list(blobs) != sorted(blobs) or len(blobs) != count:
        raise CorruptObject("a pack whose members are out of order, or followed by more")
    return blobs

"""Clean: a file's bytes become objects in the store, and a manifest.

``smudge(clean(f)) == f`` for every file, byte for byte. A blob that is already stored is recognised by a fast hash and
neither hashed cryptographically nor written again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import compress
from operator import not_

from .. import formats, pack
from ..blobs import MAX_WORK, Blobs
from ..chunks import chunks
from ..errors import FormatError, ObjectError
from ..layout import Layout, Plan, Range, plan
from ..manifest import PACKED, Blob, Digest, Entry, Manifest, Stored
from ..parallel import map_threads
from ..source import Source
from ..store import Memory, ObjectStore, get, put
from .identify import LONG, TINY, Identifier, Surroundings
from .places import Places
from .verify import Verifier

_NOTHING_KNOWN = Surroundings()


def clean(source: Source, store: ObjectStore, memory: Memory, surroundings: Surroundings = _NOTHING_KNOWN) -> Manifest:
    """Store what is new in ``source`` and return its manifest.

    Raises ``FormatError`` if the file changes while it is read, ``OSError`` if the store cannot be written.
    """
    name, located = formats.locate(source)
    cut = plan(source.size, located, lambda start, end: _cut(source, start, end))
    identifier = Identifier(source, store, memory, surroundings)
    blobs = _identify(cut, identifier)
    memory.learn(identifier.learned)
    memory.learn_stored(identifier.stored.items())
    layout = _layout(source, cut)
    identity = _identity(name, source.size, cut, blobs, Blob(Digest.of(layout), len(layout)))
    recorded = surroundings.recorded(identity.digest)
    if recorded and recorded.digest == identity.digest and _usable(recorded, store, memory):
        return recorded
    places = Places(store, memory, [manifest for manifest in (recorded, identifier.parent) if manifest])
    for digest, stored in identifier.stored.items():
        places.made(digest, stored)
    for pair in blobs.keys() - cut.inside:
        if not blobs[pair].packed and places.find(blobs[pair].digest) is None:
            identifier.store_raw(*pair)  # whatever it was recognised by is no longer to be had
    _store_small(identity, {identity.layout.digest: layout, **_small(source, cut, blobs)}, places, (store, memory))
    return replace(identity, objects=_objects(identity, places))


def _usable(manifest: Manifest, store: ObjectStore, memory: Memory) -> bool:
    """Whether a manifest, which anyone may have written, has all its objects and says the truth about each."""
    blobs = Blobs(manifest.objects, store)
    if any(store.size(blob.digest) != blob.size for blob in manifest.needs()):
        return False
    if any(blobs.work(digest) > MAX_WORK for digest in blobs.lines):
        return False
    with suppress(ObjectError):
        for digest in (digest for digest, line in blobs.lines.items() if memory.stored(digest) != line):
            Verifier(blobs, memory).verify(digest)
        return True
    return False


def _cut(source: Source, start: int, end: int) -> Iterator[Range]:
    return ((offset, offset + size) for offset, size in chunks(source, start, end))


def _identify(cut: Plan, identifier: Identifier) -> dict[Range, Blob]:
    """Every distinct range of the plan by its blob; the large ones are stored."""
    tensors = {(item.offset, item.end): item for item in reversed(cut.located)}
    inside = cut.inside

    def recall(pair: Range) -> Blob | None:
        small = pair in inside or pair[1] - pair[0] <= PACKED
        return identifier.small(*pair) if small else identifier.known(*pair)

    def store(pair: Range) -> Blob:
        item = tensors.get(pair)
        return identifier.store(*pair, item.tensor, item.name) if item else identifier.store(*pair)

    wanted = list(dict.fromkeys([*((item.offset, item.end) for item in cut.located), *cut.chunks]))
    known = dict(zip(wanted, map_threads(recall, wanted), strict=True))
    new = [pair for pair, blob in known.items() if blob is None]
    if sum(end - start for start, end in new) < TINY:
        identifier.never_encode()
    # One long blob at a time keeps all threads busy by itself, and its chunks are all that is in memory.
    alone = [end - start > LONG and identifier.encoder() is not None for start, end in new]
    short = list(compress(new, map(not_, alone)))
    stored = dict(zip(short, map_threads(store, short), strict=True))
    stored |= {pair: store(pair) for pair in compress(new, alone)}
    return {pair: blob or stored[pair] for pair, blob in known.items()}


def _layout(source: Source, cut: Plan) -> bytes:
    glue = b"".join(source.read(start, end - start) for start, end in cut.glue)
    return Layout(tuple(item.offset for item in cut.located), tuple(start for start, _ in cut.chunks), glue).dumps()


def _identity(name: str, size: int, cut: Plan, blobs: dict[Range, Blob], layout: Blob) -> Manifest:
    entries = tuple(
        Entry(item.name, item.tensor, blobs[item.offset, item.end].digest, view)
        for item, view in zip(cut.located, cut.views, strict=True)
    )
    return Manifest(name, size, layout, entries, tuple(blobs[pair] for pair in cut.chunks))


def _small(source: Source, cut: Plan, blobs: dict[Range, Blob]) -> dict[Digest, bytes]:
    """The bytes of all blobs that belong into packs. Raises ``FormatError`` if they changed since they were hashed."""
    owned = [(item.offset, item.end) for item, view in zip(cut.located, cut.views, strict=True) if not view]
    small: dict[Digest, bytes] = {}
    for start, end in [*owned, *cut.chunks]:
        blob = blobs[start, end]
        if blob.size and blob.packed and blob.digest not in small:
            small[blob.digest] = source.read(start, blob.size)
            if Digest.of(small[blob.digest]) != blob.digest:
                raise FormatError("the file changed while it was read: add it again")
    return small


def _store_small(
    identity: Manifest, small: dict[Digest, bytes], places: Places, ports: tuple[ObjectStore, Memory]
) -> None:
    """Put those small blobs, and small encoded objects, into new packs that are in none yet."""
    store, memory = ports
    if not identity.layout.packed:
        put(store, small.pop(identity.layout.digest))
    for blob in identity.blobs():
        loose = (line for line in places.find(blob.digest) or () if line.packed and not places.pack(line.oid))
        small |= {line.oid: get(store, line.oid, line.size) for line in loose}
    for members, data in pack.dumps({digest: small[digest] for digest in small if not places.pack(digest)}):
        stored = Stored("pack", put(store, data), len(data))
        memory.learn_stored((digest, stored) for digest in members)
        for digest in members:
            places.made(digest, stored)


def _objects(identity: Manifest, places: Places) -> tuple[Stored, ...]:
    """The storage section: what must stand there for every blob of the identity to be had."""
    lines: set[Stored] = set()
    for blob in identity.blobs():
        lines |= places.find(blob.digest) or set()
    implied = {blob.digest for blob in identity.blobs() if not blob.packed}
    return tuple(sorted(line for line in lines if line.kind != "raw" or line.oid not in implied))

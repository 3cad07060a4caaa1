"""Clean: a file's bytes become objects in the store, and a manifest.

``smudge(clean(f)) == f`` for every file, byte for byte. A blob that is already stored is recognised by a fast hash and
neither hashed cryptographically nor written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from .. import formats, pack
from ..chunks import chunks
from ..errors import FormatError, ObjectError
from ..layout import Layout, Plan, Range, plan
from ..manifest import PACKED, Blob, Digest, Entry, Manifest, Stored
from ..parallel import map_threads
from ..source import Source
from ..store import Memory, ObjectStore, get, put
from .identify import Identifier

Recorded = Callable[[Digest], Manifest | None]  # the manifest that should be kept to, given a version's digest


def clean(source: Source, store: ObjectStore, memory: Memory, recorded: Recorded = lambda _: None) -> Manifest:
    """Store what is new in ``source`` and return its manifest.

    Of several objects that could serve for the same bytes, those that are ``recorded`` win, then those of ``memory``.
    Raises ``FormatError`` if the file changes while it is read, ``OSError`` if the store cannot be written.
    """
    name, located = formats.locate(source)
    cut = plan(source.size, located, lambda start, end: _cut(source, start, end))
    blobs = _identify(source, cut, store, memory)
    layout = _layout(source, cut)
    identity = _identity(name, source.size, cut, blobs, Blob(Digest.of(layout), len(layout)))
    previous = recorded(identity.digest)
    if previous and previous.digest == identity.digest and all(store.size(o.oid) == o.size for o in previous.objects):
        return previous
    small = _small(source, cut, blobs)
    if identity.layout.packed:
        small[identity.layout.digest] = layout
    else:
        put(store, layout)
    objects = _packs(small, store, memory, previous)
    return Manifest(name, source.size, identity.layout, identity.entries, identity.chunks, objects)


def _cut(source: Source, start: int, end: int) -> Iterator[Range]:
    return ((offset, offset + size) for offset, size in chunks(source, start, end))


def _identify(source: Source, cut: Plan, store: ObjectStore, memory: Memory) -> dict[Range, Blob]:
    """Every distinct range of the plan by its blob; the large ones are stored."""
    identifier = Identifier(source, store, memory)
    ranges = [(item.offset, item.end) for item in cut.located]
    views = {pair for pair, view in zip(ranges, cut.views, strict=True) if view}
    wanted = list(dict.fromkeys([*ranges, *cut.chunks]))

    def identify(pair: Range) -> Blob:
        if pair in views or pair[1] - pair[0] <= PACKED:
            return identifier.small(*pair)
        return identifier.large(*pair)

    blobs = map_threads(identify, wanted)
    memory.learn(identifier.learned)
    return dict(zip(wanted, blobs, strict=True))


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


def _packs(
    blobs: dict[Digest, bytes], store: ObjectStore, memory: Memory, previous: Manifest | None
) -> tuple[Stored, ...]:
    """The packs that hold ``blobs``: those that do already, and new ones for the rest."""
    holders: dict[Digest, Stored] = {}
    for stored in previous.objects if previous else ():
        with suppress(ObjectError):  # a pack that is gone or corrupt serves for nothing
            if stored.kind == "pack":
                held = pack.loads(get(store, stored.oid, stored.size))
                holders |= {digest: stored for digest in held if digest in blobs and digest not in holders}
    for digest in blobs.keys() - holders.keys():
        known = memory.stored(digest)
        if known and store.size(known.oid) == known.size:
            holders[digest] = known
    for members, data in pack.dumps({digest: blobs[digest] for digest in blobs.keys() - holders.keys()}):
        stored = Stored("pack", put(store, data), len(data))
        memory.learn_stored(stored, members)
        holders |= dict.fromkeys(members, stored)
    return tuple(sorted(set(holders.values())))

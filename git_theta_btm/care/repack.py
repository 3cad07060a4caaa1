"""Repack: tensors that are stored already become smaller objects, in terms of better bases.

A commit never changes, so the manifests in it go on naming the objects that they name, and nothing is deleted here.
What is gained is gained by the commits to come: the new objects are remembered for the next ``git add`` that needs
them, and with ``stage`` the manifests in the index name them at once. A new object counts only after it was decoded
and had the right SHA-256; a run that is killed leaves whole objects behind, which the next run goes on from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

from ..blobs import Blobs
from ..catalogue import open_catalogue
from ..encoded import Header, encode_span
from ..errors import CorruptObject
from ..filters.encode import Encoder, Encoding, Scribe, width_of
from ..filters.identify import mode_of
from ..filters.places import Lines, Places
from ..filters.verify import Verifier
from ..floats import MANTISSA
from ..manifest import Blob, Digest, Entry, Manifest, Stored
from ..repository import Repository, attributes
from ..source import BytesSource, Source
from ..store import Forgetful, Memory, ObjectStore, Writer
from ..updates import Span
from .lineage import Descent, is_alike, lineage
from .staging import restage

Progress = Callable[[int, int], None]  # tensors done, and of how many
_GAIN = 0.95  # of the present object: less of a gain is not worth a second object
_SAMPLE = 64 << 10  # bytes that tell how close two tensors are; a multiple of every element's width
_TRIED = 16  # tensors of the same type and size that one without close relatives is compared with
_POOL = 2048  # tensors that are kept in mind for that: their samples take 128 MiB at most


@dataclass(frozen=True, slots=True)
class Options:
    """``paths`` instead of all models; ``everything``: all versions that git keeps, not those in the index alone;
    ``mode``: ``fast`` or ``small`` instead of what the attribute theta-store says; ``stage`` the smaller manifests;
    ``dry_run``: only estimate."""

    paths: Sequence[str] = ()
    everything: bool = False
    mode: str | None = None
    stage: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Repacked:
    """One tensor with the bytes that its object took and takes now, by an estimate in a dry run."""

    path: str
    parameter: str
    digest: Digest
    before: int
    after: int
    base: Digest | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How many tensors were looked at, those that became smaller, and the paths whose manifests were staged."""

    tensors: int
    repacked: tuple[Repacked, ...]
    staged: tuple[str, ...] = ()


def repack(repository: Repository, options: Options, progress: Progress = lambda done, total: None) -> Report:
    """Re-encode what that makes smaller. Raises ``ThetaError`` if a path matches no model, ``CorruptObject`` if an
    object turns out to be broken, ``OSError`` if there is no room for new ones."""
    models = repository.models(*options.paths)
    found = lineage(repository, models, everything=options.everything, narrow=bool(options.paths))
    modes = _modes(repository, found.descents, options.mode)
    total = sum(descent.wanted for descent in found.descents)
    catalogue = open_catalogue(repository.store.root)
    try:
        packer = _Packer(repository.store, catalogue, found.manifests, dry_run=options.dry_run)
        repacked: list[Repacked] = []
        seen = 0
        for descent in found.descents:
            if descent.wanted and modes[descent.path] != "raw":
                repacked += packer.improve(descent, modes[descent.path])
            packer.meet(descent.entry)
            seen += descent.wanted
            progress(seen, total)
        staged = restage(repository, catalogue, packer.places, models) if options.stage and not options.dry_run else []
    finally:
        catalogue.close()
    return Report(total, tuple(repacked), tuple(staged))


def _modes(repository: Repository, descents: Sequence[Descent], mode: str | None) -> dict[str, str]:
    """How each path wants its tensors stored: raw stays raw, whatever is asked for."""
    paths = list(dict.fromkeys(descent.path for descent in descents))
    asked = {path: words["theta-store"] for path, words in attributes(repository.git, paths, "theta-store").items()}
    known = {path: mode_of(word) for path, word in asked.items()}
    return {path: mode if mode and word != "raw" else word for path, word in known.items()}


class _Packer:
    """Makes one tensor after the other smaller, where it can. ``places`` says how each is stored by now.

    A base never leads back to the tensor itself, and no tensor needs more decodings than a ``git add`` allows it.
    """

    def __init__(self, store: ObjectStore, memory: Memory, manifests: Sequence[Manifest], *, dry_run: bool) -> None:
        self.places = Places(store, memory, manifests)
        self._store, self._memory, self._dry_run = store, memory, dry_run
        self._pool: deque[Entry] = deque(maxlen=_POOL)
        self._sample = lru_cache(_POOL)(self._read_sample)

    def meet(self, entry: Entry) -> None:
        """Keep a tensor in mind as a base for those that come later."""
        self._pool.append(entry)

    def improve(self, descent: Descent, mode: str) -> Iterator[Repacked]:
        """Store a tensor anew if that takes clearly less room, and tell of it."""
        entry = descent.entry
        self._adopt(entry)
        lines = self.places.find(entry.digest)
        if lines is None:  # it is not here
            return
        before = _own_size(lines, entry)
        base, after = self._choose(descent, MANTISSA.get(entry.tensor.dtype.name) if mode == "small" else None)
        if after >= _GAIN * before:
            return
        if not self._dry_run:
            below = (base and self.places.find(base)) or frozenset()
            stored = self._store_anew(entry, base, (lines, below), mode)
            if stored is None:
                return
            base, after = (Digest(stored.rest[1]) if stored.rest[1:] else None), stored.size
        yield Repacked(descent.path, entry.name, entry.digest, before, int(after), base)

    def _adopt(self, entry: Entry) -> None:
        """Take over what an earlier run made of the tensor, if that is smaller."""
        stored, lines = self._memory.stored(entry.digest), self.places.find(entry.digest)
        if stored is None or lines is None or not stored.encoded or stored.size >= _own_size(lines, entry):
            return
        here = self._store.size(stored.oid) == stored.size or self.places.pack(stored.oid) is not None
        if here and all(self._fits(Digest(base), entry.digest) for base in stored.rest[1:]):
            self.places.made(entry.digest, stored)

    def _fits(self, base: Digest, digest: Digest) -> bool:
        """Whether ``base`` is here, and to be had without the tensor that is to be based on it."""
        lines = self.places.find(base)
        return lines is not None and digest not in {line.rest[0] if line.encoded else line.oid for line in lines}

    # -- which base --------------------------------------------------------------------------------------------------

    def _choose(self, descent: Descent, group: int | None) -> tuple[Digest | None, float]:
        """The base that a sample is closest to, if any is close, and the bytes that the whole may take then.

        Relatives by name come first; only where none of them is close, others are tried.
        """
        entry = descent.entry
        sample, width = self._sample(entry.digest), width_of(entry.tensor)
        scale = entry.tensor.nbytes / len(sample)
        plain = _cost(sample, None, width)
        for bases in (descent.bases, self._similar(entry)):
            costs = [
                (_cost(sample, self._sample(base), width, group), base)
                for base in bases
                if self._fits(base, entry.digest)
            ]
            if costs and min(costs)[0] < _GAIN * plain:
                cost, base = min(costs)
                return base, cost * scale
        return None, plain * scale

    def _similar(self, entry: Entry) -> list[Digest]:
        """A few tensors of the same type and size: those of the same name first, then the latest."""
        alike = [other for other in reversed(self._pool) if is_alike(other, entry)]
        alike.sort(key=lambda other: other.name != entry.name)
        return [other.digest for other in alike[:_TRIED]]

    def _read_sample(self, digest: Digest) -> bytes:
        """The middle of a tensor."""
        with Blobs(self.places.find(digest) or (), self._store).open(digest) as source:
            size = min(_SAMPLE, source.size)
            return source.read((source.size - size) // 2 // 8 * 8, size)

    # -- a new object ------------------------------------------------------------------------------------------------

    def _store_anew(self, entry: Entry, base: Digest | None, lines: tuple[Lines, Lines], mode: str) -> Stored | None:
        """Encode a tensor and remember how, once the object is known to be right; None if it does not pay.

        ``lines`` are those that it needs as it is stored now, and those of its base.
        """
        now, below = lines
        parent = _version_with(replace(entry, digest=base)) if base else None
        thrifty = _Thrifty(self._store, int(_GAIN * _own_size(now, entry)))
        with Blobs(now, self._store).open(entry.digest) as source:
            scribe = Scribe(source, _Anew(below, self._store), thrifty, self._memory)
            try:
                encoding = Encoder(scribe, parent, mode).encode(0, source.size, entry.tensor, entry.name)
            except _TooLong:
                return None
        return self._settle(entry, encoding, below) if encoding else None

    def _settle(self, entry: Entry, encoding: Encoding, below: Lines) -> Stored | None:
        stored = encoding.stored
        if stored is None or encoding.known.blob != entry.blob:
            raise CorruptObject(f"what is stored for {entry.digest} is not it: run 'git theta fsck'")
        Verifier(Blobs({stored} | below, self._store), Forgetful()).verify(entry.digest, entry.tensor.nbytes)
        self._memory.learn(filter(None, (encoding.known, encoding.whole)))
        self._memory.learn_stored([(entry.digest, stored)])
        self.places.made(entry.digest, stored)
        return stored


def _own_size(lines: Lines, entry: Entry) -> int:
    """Bytes of the object that holds a tensor, without its bases."""
    return next((line.size for line in lines if line.encoded and line.rest[0] == entry.digest), entry.tensor.nbytes)


def _cost(sample: bytes, base: bytes | None, width: int, group: int | None = None) -> int:
    """Bytes that a sample takes as a delta of another one, or by itself."""
    header = Header("dense", width, 0, {}) if base is None else Header("delta", width, 0, {}, group)
    bases = [] if base is None else [BytesSource(base)]
    return len(encode_span(sample, Span(0, len(sample), width), header, bases))


def _version_with(entry: Entry) -> Manifest:
    """A version that holds one tensor: what an encoder takes its bases from."""
    return Manifest("opaque", 0, Blob(Digest.of(b""), 0), (entry,))


class _Anew(Blobs):
    """Bases, for an encoder that would leave alone what is stored already."""

    def holds(self, digest: Digest) -> bool:
        return False


class _TooLong(Exception):
    """An object outgrew its limit."""


class _Thrifty:
    """A store that takes objects of at most ``limit`` bytes. Raises ``_TooLong`` for others, and keeps nothing."""

    def __init__(self, store: ObjectStore, limit: int) -> None:
        self._store, self._limit = store, limit

    def size(self, oid: Digest) -> int | None:
        return self._store.size(oid)

    @contextmanager
    def open(self, oid: Digest) -> Iterator[Source]:
        with self._store.open(oid) as source:
            yield source

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with self._store.writer() as writer:
            yield _Counting(writer, self._limit)


class _Counting:
    """Writes until there is no more room."""

    def __init__(self, writer: Writer, room: int) -> None:
        self._writer, self._room = writer, room
        self.commit = writer.commit

    def write(self, data: bytes | memoryview) -> None:
        self._room -= len(data)
        if self._room < 0:
            raise _TooLong
        self._writer.write(data)

"""Encode: a new blob becomes the cheapest object that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf
from typing import Any

from xxhash import xxh3_128

from ..blobs import MAX_WORK, Blobs
from ..encoded import Header, encode_span, table
from ..errors import CorruptObject, ObjectError
from ..floats import MANTISSA
from ..manifest import Blob, Digest, Manifest, Stored
from ..parallel import WORKERS, keep_freed_memory, stream_threads
from ..source import BLOCK, BytesSource, Source
from ..store import Known, Memory, ObjectStore, put
from ..tensor import Tensor
from ..updates import Span
from .identify import LONG, sample
from .verify import Verifier

_WORK = {"fast": 6, "small": 8}  # decodings that a checkout may have to stack: each costs as much as the first
_SAMPLES = 4  # places at which the candidates are tried
_SAMPLE = 64 << 10  # bytes tried at each; a multiple of every element's width
_RAW = 0.97  # of its size: what does not shrink to this stays raw, and is read without any decoding
_WORTH = 0.98  # of the dense object: a smaller gain is not worth depending on a base


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to store a blob in terms of its bases."""

    kind: str = "dense"
    bases: tuple[Blob, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    group: int | None = None

    def header(self, size: int, width: int) -> Header:
        return Header(self.kind, width, size, self.parameters, self.group)


@dataclass(frozen=True, slots=True)
class Encoding:
    """What encoding a blob gave: its identity and what it is recognised by, and the same of the object that holds it,
    unless the blob turned out to be stored already."""

    known: Known
    stored: Stored | None = None
    whole: Known | None = None


@dataclass(frozen=True, slots=True)
class Scribe:
    """Writes ranges of ``source`` into ``store``, in terms of ``blobs``. Safe to use from many threads."""

    source: Source
    blobs: Blobs
    store: ObjectStore
    memory: Memory

    def cost(self, start: int, whole: Span, candidate: Candidate) -> float:
        """The share of its size that a sample of the range would take; infinite if a base cannot be had."""
        header = candidate.header(whole.size, whole.width)
        spans = list(_samples(whole))
        try:
            with ExitStack() as stack:
                bases = [stack.enter_context(self.blobs.open(base.digest)) for base in candidate.bases]
                parts = (self.source.read(start + span.offset, span.size) for span in spans)
                cost = sum(len(encode_span(raw, span, header, bases)) for raw, span in zip(parts, spans, strict=True))
        except ObjectError:
            return inf
        return cost / sum(span.size for span in spans)

    def check(self, blob: Blob) -> None:
        """Raise ``ObjectError`` unless the blob has the right bytes: what is built on others is lost with them."""
        if self.blobs.work(blob.digest) > MAX_WORK:
            raise CorruptObject(f"blob {blob.digest} is built on itself, or on more than {MAX_WORK} others")
        verifier = Verifier(self.blobs, self.memory)
        for digest in reversed(self.blobs.closure([blob.digest])):
            verifier.verify(digest, blob.size if digest == blob.digest else None)

    def _holds(self, blob: Blob) -> bool:
        with suppress(ObjectError):
            if self.blobs.holds(blob.digest):
                self.check(blob)
                return True
        return False

    def write(self, start: int, end: int, width: int, candidate: Candidate) -> Encoding:
        """Store ``start..end`` of the source as ``candidate`` says.

        Raises ``ObjectError`` if a base cannot be had, or does not fit, or if reading the object would take too long.
        """
        header = candidate.header(end - start, width)
        work = sum(self.blobs.work(base.digest) for base in candidate.bases)
        if work >= MAX_WORK or len(candidate.bases) > MAX_WORK:
            raise ObjectError(f"a {candidate.kind} object would take more than {MAX_WORK} decodings")
        for base in candidate.bases:
            self.check(base)
        seed = self.memory.seed
        identity, quick, whole = sha256(), xxh3_128(seed=seed), xxh3_128(seed=seed)

        def spans() -> Iterator[tuple[bytes, Span]]:
            for span in header.spans():
                raw = self.source.read(start + span.offset, span.size)
                identity.update(raw)
                quick.update(raw)
                yield raw, span

        with ExitStack() as stack:
            bases = [stack.enter_context(self.blobs.open(base.digest)) for base in candidate.bases]
            writer = stack.enter_context(self.store.writer())
            workers = WORKERS if end - start > LONG else 1
            parts = stream_threads(lambda job: encode_span(*job, header, bases), spans(), workers)
            size = 0
            for part in _object(header, parts):
                writer.write(part)
                whole.update(part)
                size += len(part)
            digest = Digest(identity.hexdigest())
            known = Known(Blob(digest, end - start), quick.digest(), sample(self.source, start, end, seed))
            if self._holds(known.blob):
                return Encoding(known)
            oid = writer.commit()
        stored = Stored(candidate.kind, oid, size, (digest, *(base.digest for base in candidate.bases)))
        return Encoding(known, stored, Known(Blob(oid, size), whole.digest()))


class Encoder:
    """Encodes ranges of one file, in terms of the file's ``parent`` where that pays. Safe to use from many threads."""

    def __init__(self, scribe: Scribe, parent: Manifest | None, mode: str) -> None:
        self._scribe, self._blobs, self._mode = scribe, scribe.blobs, mode
        self._entries = {entry.name: entry for entry in parent.entries if not entry.view} if parent else {}
        keep_freed_memory()

    def encode(self, start: int, end: int, tensor: Tensor | None, name: str) -> Encoding | None:
        """Store the range, which is the parameter ``name`` or a chunk; None, and nothing stored, if raw is best."""
        whole = Span(0, end - start, width_of(tensor))
        dense = Candidate()
        for candidates in ([dense, *self._deltas(tensor, name)], [dense]):
            chosen = self._choose(start, whole, candidates)
            with suppress(ObjectError):  # its base is not what it should be: do without
                return self._scribe.write(start, end, whole.width, chosen) if chosen else None
        return None

    def _deltas(self, tensor: Tensor | None, name: str) -> Iterator[Candidate]:
        entry = self._entries.get(name)
        if not tensor or not entry or (entry.tensor.dtype, entry.tensor.nbytes) != (tensor.dtype, tensor.nbytes):
            return
        base = entry.digest
        if self._blobs.work(base) > MAX_WORK:
            return
        if self._blobs.work(base) >= (limit := _WORK[self._mode]):  # the next ones are to be close to this again
            while self._blobs.work(base) > limit // 2 and (bases := self._blobs.bases(base)):
                base = bases[0]
        group = MANTISSA.get(tensor.dtype.name) if self._mode == "small" else None
        yield Candidate("delta", (Blob(base, tensor.nbytes),), group=group)

    def _choose(self, start: int, whole: Span, candidates: Sequence[Candidate]) -> Candidate | None:
        """What costs least on samples; None if the blob is best kept raw."""
        best, least = None, _RAW
        for candidate in candidates:
            cost = self._scribe.cost(start, whole, candidate)
            if cost < least * (_WORTH if candidate.bases else 1):
                best, least = candidate, cost
        return best


def _object(header: Header, parts: Iterator[bytes]) -> Iterator[bytes]:
    yield header.dumps()
    lengths = []
    for part in parts:
        lengths.append(len(part))
        yield part
    yield table(lengths)


def width_of(tensor: Tensor | None) -> int:
    """Bytes of what is one number in a tensor's memory; 1 for chunks and for quantised blocks."""
    if tensor is None or tensor.dtype.block > 1:
        return 1
    return tensor.dtype.size // 2 if tensor.dtype.name in ("C32", "C64", "C128") else tensor.dtype.size


def _samples(whole: Span) -> Iterator[Span]:
    """Spans spread over the blob; all of a small one."""
    if whole.size <= _SAMPLES * _SAMPLE:
        yield whole
        return
    for index in range(_SAMPLES):
        yield Span((whole.size - _SAMPLE) * index // (_SAMPLES - 1) // 8 * 8, _SAMPLE, whole.width)


def offer(data: bytes, tensor: Tensor, candidate: Candidate, blobs: Blobs, ports: tuple[ObjectStore, Memory]) -> Blob:
    """Store one tensor's bytes as ``candidate`` says, and remember it, so that the next ``git add`` finds it so.

    For whoever knows how a tensor came about: a merge, an adapter, a repack. Raises ``ObjectError``.
    """
    store, memory = ports
    encoding = Scribe(BytesSource(data), blobs, store, memory).write(0, len(data), width_of(tensor), candidate)
    memory.learn(filter(None, (encoding.known, encoding.whole)))
    if encoding.stored:
        memory.learn_stored([(encoding.known.blob.digest, encoding.stored)])
    return encoding.known.blob


def record(
    source: Source, span: tuple[int, int], tensor: Tensor, candidate: Candidate, ports: tuple[ObjectStore, Memory]
) -> Blob:
    """Store the tensor at ``span`` of ``source``, which is certain to be what ``candidate`` predicts to the last bit,
    and remember it, so that the next ``git add`` finds it so.

    Nothing is predicted here: whoever computed the tensor by this update, from bases whose digests were verified, has
    done that. Raises ``OSError`` if the store cannot be written, ``CorruptObject`` if the candidate is too long.
    """
    store, memory = ports
    start, end = span
    identity, quick = sha256(), xxh3_128(seed=memory.seed)
    for at in range(start, end, BLOCK):
        block = source.read(at, min(BLOCK, end - at))
        identity.update(block)
        quick.update(block)
    header = candidate.header(end - start, width_of(tensor))
    data = header.dumps() + table([0 for _ in header.spans()])
    blob = Blob(Digest(identity.hexdigest()), end - start)
    stored = Stored(
        candidate.kind, put(store, data), len(data), (blob.digest, *(base.digest for base in candidate.bases))
    )
    memory.learn([Known(blob, quick.digest(), sample(source, start, end, memory.seed))])
    memory.learn_stored([(blob.digest, stored)])
    return blob

"""Producing: the merged file, and the objects and the manifest that stand for it.

The file is written first, tensor after tensor, and then cleaned like any other: its manifest is what ``git add`` would
make. What a stored merge can repeat is recorded before that, and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from .. import formats, pack
from ..api import Checkpoint
from ..blobs import MAX_WORK
from ..errors import ObjectError
from ..filters.clean import clean
from ..filters.encode import record
from ..filters.identify import Surroundings
from ..filters.verify import Verifier
from ..layout import Range
from ..manifest import Blob, Digest, Manifest, Stored
from ..merges import Strategy
from ..parallel import keep_freed_memory, map_threads
from ..rewrite import rewrite
from ..source import FileSource, Source
from ..store import Memory, ObjectStore, get
from .computing import Computation, Device
from .inputs import Models
from .resolve import BASE, Step

Progress = Callable[[int, int], None]  # bytes of the file done, and in all
_Read = tuple[Checkpoint, str | None]  # a parameter of a model, or all of it


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where merged objects go, how they are stored (``theta-store``), where they are computed, and who is told."""

    store: ObjectStore
    memory: Memory
    mode: str = "fast"
    device: Device = Device()
    progress: Progress = lambda done, total: None


def produce(models: Models, steps: Sequence[Step], out: int, workshop: Workshop) -> Manifest:
    """Write the merged model to the empty file ``out``, open for both reading and writing, and store it.

    Raises ``ObjectError`` if an input is missing or corrupt, ``MergeConflict`` if parameters that share their memory
    would get different values, and ``ThetaError`` if a strategy has no answer.
    """
    keep_freed_memory()
    everything = [*models.tips, *([models.base] if models.base else [])]
    _remember(everything, workshop)
    computations = [Computation(step, models, workshop.device) for step in steps if step.choice]
    _verify(models, steps, computations, workshop)
    new = _merged(models, steps, computations)
    new |= {name: models.source(0, name) for name in _sharing(models.tips[0], new)}
    _write(models.tips[0].file, new, out, workshop)
    source = FileSource(out)
    lasting = [item for item in computations if _pays(item, everything)] if workshop.mode != "raw" else []
    recorded = _record_all(lasting, source, workshop)
    surroundings = Surroundings(parent=lambda: models.tips[0].manifest, mode=lambda: workshop.mode, hashed=recorded)
    return clean(source, workshop.store, workshop.memory, surroundings)


def compute(models: Models, steps: Sequence[Step], device: Device) -> dict[str, Source]:
    """The merged parameters by name, those that are the first tip's as they are left out."""
    return _merged(models, steps, [Computation(step, models, device) for step in steps if step.choice])


def _merged(models: Models, steps: Sequence[Step], computations: Sequence[Computation]) -> dict[str, Source]:
    _survey(computations)
    new = {item.step.name: item.source() for item in computations}
    return new | {step.name: models.source(step.take, step.name) for step in steps if step.take}


def _remember(models: Iterable[Checkpoint], workshop: Workshop) -> None:
    """Remember what is packed, so that a new object may be based on it."""
    for stored in frozenset[Stored]().union(*(model.manifest.objects for model in models)):
        if stored.kind == "pack":
            with suppress(ObjectError):  # whoever needs it will say so
                members = pack.loads(get(workshop.store, stored.oid, stored.size))
                sound = [digest for digest, data in members.items() if Digest.of(data) == digest]
                workshop.memory.learn_stored((digest, stored) for digest in sound)


def _verify(models: Models, steps: Sequence[Step], computations: Sequence[Computation], workshop: Workshop) -> None:
    """Compare everything that is about to be read with its digest; what several models are stored in, once."""
    read: list[_Read] = [(models.tips[0], None)]
    for step in steps:
        read += [(models.at(place), step.name) for place in step.tips or ([step.take] if step.take else [])]
    for item in computations:
        read += [(models.at(BASE), item.step.name)] if item.has_base else []
        read += [(model, item.step.name) for model in item.statistics]
    jobs: dict[tuple[Digest, Stored | None], Callable[[], None]] = {}
    for model, name in _distinct(read):  # each by its own lines: two ways to a blob may be built on each other
        verifier, sizes = Verifier(model.blobs, workshop.memory), _sizes(model, name)
        for digest in model.blobs.closure(sizes):
            jobs[digest, model.blobs.lines.get(digest)] = partial(verifier.verify, digest, sizes.get(digest))
    map_threads(lambda job: job(), list(jobs.values()))


def _distinct(read: Iterable[_Read]) -> Iterable[_Read]:
    """Each parameter of each model once; the whole model instead of one that is a view into others."""
    found: dict[tuple[int, str | None], _Read] = {}
    for model, name in read:
        what = None if name is None or model.entries[name].view else name
        found[id(model), what] = model, what
    return found.values()


def _sizes(model: Checkpoint, name: str | None) -> dict[Digest, int]:
    if name is None:
        return {blob.digest: blob.size for blob in model.manifest.blobs()}
    entry = model.entries[name]
    return {entry.digest: entry.tensor.nbytes} if entry.tensor.nbytes else {}


def _survey(computations: Sequence[Computation]) -> None:
    """Let each strategy look at the model as a whole where it wants to, and at the parameters that are too large to be
    looked at and merged in one go."""
    groups: dict[Strategy, list[Computation]] = {}
    for item in computations:
        groups.setdefault(item.strategy, []).append(item)
    for strategy, items in groups.items():
        model = strategy.survey(item.sides for item in items)
        for item in items:
            item.model = model
    map_threads(lambda item: item.measures, [item for item in computations if not item.small])


def _sharing(first: Checkpoint, new: Mapping[str, Source]) -> list[str]:
    """The parameters that stay as they are but share their memory with others, which may not: that would show."""
    places = {item.name: (item.offset, item.end) for item in formats.locate(first.file)[1]}
    written = {places[name] for name in new if name in places}
    return [
        name
        for name, entry in first.entries.items()
        if entry.tensor.nbytes and name not in new and (entry.view or places.get(name) in written)
    ]


def _write(file: Source, new: dict[str, Source], out: int, workshop: Workshop) -> None:
    done = 0

    def wrote(size: int) -> None:
        nonlocal done
        done += size
        workshop.progress(done, file.size)

    rewrite(file, new, out, wrote)


def _pays(item: Computation, models: Sequence[Checkpoint]) -> bool:
    """Whether a merged parameter is best stored as its recipe. A small one goes into a pack as it is."""
    if not item.recordable or item.tensor.nbytes == 0 or item.entry.view or item.entry.blob.packed:
        return False
    work = sum(max(model.blobs.work(base.digest) for model in models) for base in item.candidate.bases)
    return work < MAX_WORK and len(item.candidate.bases) <= MAX_WORK


def _record_all(items: Sequence[Computation], source: Source, workshop: Workshop) -> dict[Range, Blob]:
    """Store each of these parameters as its recipe; returns what the ranges of the file are."""
    located = {item.name: (item.offset, item.end) for item in formats.locate(source)[1]}
    places = [located[item.step.name] for item in items]

    def store(job: tuple[Computation, Range]) -> Blob:
        item, place = job
        return record(source, place, item.tensor, item.candidate, (workshop.store, workshop.memory))

    return dict(zip(places, map_threads(store, list(zip(items, places, strict=True))), strict=True))

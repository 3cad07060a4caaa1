"""Producing: the merged file, and the objects and the manifest that stand for it.

The file is written first, tensor after tensor, and then cleaned like any other: its manifest is what ``git add`` would
make. What a stored merge can repeat is recorded before that, and costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .. import formats, pack
from ..api import Checkpoint
from ..blobs import MAX_WORK, Blobs
from ..errors import ObjectError
from ..filters.clean import clean
from ..filters.encode import record
from ..filters.identify import Surroundings
from ..filters.verify import Verifier
from ..layout import Located
from ..manifest import Digest, Manifest, Stored
from ..merges import Strategy
from ..parallel import keep_freed_memory, map_threads
from ..rewrite import rewrite
from ..source import FileSource, Source
from ..store import Memory, ObjectStore, get
from .computing import Computation, Device
from .inputs import Models
from .resolve import Step

Progress = Callable[[int, int], None]  # bytes of the file done, and in all


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
    manifests = [model.manifest for model in (*models.tips, *([models.base] if models.base else []))]
    blobs = _gather(manifests, workshop)
    computations = [Computation(step, models, workshop.device) for step in steps if step.choice]
    _verify(models, steps, computations, (blobs, workshop))
    new = _merged(models, steps, computations)
    new |= {name: models.source(0, name) for name in _sharing(models.tips[0], new)}
    _write(models.tips[0].file, new, out, workshop)
    source = FileSource(out)
    if workshop.mode != "raw":
        located = {item.name: item for item in formats.locate(source)[1]}
        lasting = [item for item in computations if _pays(item, blobs)]
        map_threads(lambda item: _record(item, located[item.step.name], source, workshop), lasting)
    surroundings = Surroundings(parent=lambda: models.tips[0].manifest, mode=lambda: workshop.mode)
    return clean(source, workshop.store, workshop.memory, surroundings)


def compute(models: Models, steps: Sequence[Step], device: Device) -> dict[str, Source]:
    """The merged parameters by name, those that are the first tip's as they are left out."""
    return _merged(models, steps, [Computation(step, models, device) for step in steps if step.choice])


def _merged(models: Models, steps: Sequence[Step], computations: Sequence[Computation]) -> dict[str, Source]:
    _survey(computations)
    new = {item.step.name: item.source() for item in computations}
    return new | {step.name: models.source(step.take, step.name) for step in steps if step.take}


def _gather(manifests: Iterable[Manifest], workshop: Workshop) -> Blobs:
    """All that the models are stored in. What is packed is remembered, so that a new object may be based on it."""
    lines = frozenset[Stored]().union(*(manifest.objects for manifest in manifests))
    for stored in lines:
        if stored.kind == "pack":
            with suppress(ObjectError):  # whoever needs it will say so
                members = pack.loads(get(workshop.store, stored.oid, stored.size))
                sound = [digest for digest, data in members.items() if Digest.of(data) == digest]
                workshop.memory.learn_stored((digest, stored) for digest in sound)
    return Blobs(lines, workshop.store)


def _verify(
    models: Models, steps: Sequence[Step], computations: Sequence[Computation], means: tuple[Blobs, Workshop]
) -> None:
    """Compare everything that is about to be read with its digest."""
    blobs, workshop = means
    wanted = {blob.digest: blob.size for blob in models.tips[0].manifest.blobs()}
    for step in steps:
        for place in step.tips or ([step.take] if step.take else []):
            _want(models, place, step.name, wanted)
    for item in computations:
        if item.has_base:
            _want(models, -1, item.step.name, wanted)
    verifier = Verifier(blobs, workshop.memory)
    map_threads(lambda digest: verifier.verify(digest, wanted.get(digest)), blobs.closure(wanted))


def _want(models: Models, place: int, name: str, wanted: dict[Digest, int]) -> None:
    entry = models.at(place).entries[name]
    if entry.view:
        wanted.update((blob.digest, blob.size) for blob in models.at(place).manifest.blobs())
    elif entry.tensor.nbytes:
        wanted[entry.digest] = entry.tensor.nbytes


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


def _pays(item: Computation, blobs: Blobs) -> bool:
    """Whether a merged parameter is best stored as its recipe. A small one goes into a pack as it is."""
    if not item.recordable or item.tensor.nbytes == 0 or item.entry.view or item.entry.blob.packed:
        return False
    work = sum(blobs.work(base.digest) for base in item.candidate.bases)
    return work < MAX_WORK and len(item.candidate.bases) <= MAX_WORK


def _record(item: Computation, place: Located, source: Source, workshop: Workshop) -> None:
    span = (place.offset, place.end)
    record(source, span, item.tensor, item.candidate, (workshop.store, workshop.memory))

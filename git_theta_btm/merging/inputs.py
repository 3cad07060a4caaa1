"""Inputs: the bytes of what is merged, one parameter of all models at a time.

The models of a merge are mostly stored as differences from the same seed. Read side by side, span by span, the seed is
decoded once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..api import Checkpoint
from ..blobs import Opened
from ..manifest import Entry
from ..source import BytesSource, Data, Source, view
from .resolve import BASE, Rows

SPAN = 4 << 20  # bytes of each model that are read at a time: a chunk of an encoded object is decoded whole
_KEPT = 64 << 20  # bytes of a parameter in all models that are held between passes over it, by each thread


@dataclass(frozen=True, slots=True)
class Models:
    """The tips, the base, and for each tip a file of statistics, which strategies may ask for."""

    tips: tuple[Checkpoint, ...]
    base: Checkpoint | None = None
    statistics: tuple[Checkpoint, ...] = ()
    rows: Mapping[int, Rows] | None = None

    def at(self, place: int) -> Checkpoint:
        if place != BASE:
            return self.tips[place]
        assert self.base is not None
        return self.base

    def open(self, place: int, name: str, opened: Opened) -> Source:
        """A parameter's bytes, in the first tip's order of rows, until ``opened`` is closed."""
        source = self.at(place).source_among(name, opened)
        rows = self._rows(place, name)
        return _Gathered(source, self.tips[0].source_among(name, opened), rows) if rows else source

    def size(self, place: int, name: str) -> int:
        """How many bytes that are."""
        return self.at(0 if self._rows(place, name) else place).entries[name].tensor.nbytes

    def _rows(self, place: int, name: str) -> Rows | None:
        """Where the rows of a table are, if that is not where the first tip has them."""
        ours, theirs = (self.at(each).entries[name].tensor for each in (0, place))
        rows = self.rows.get(place) if self.rows else None
        return rows if theirs.nbytes != ours.nbytes and ours.shape else None

    def source(self, place: int, name: str) -> Source:
        """The same, opened for each read, so that a model of thousands needs few descriptors."""
        return _Reopened(self, place, name)


class _Reopened:
    def __init__(self, models: Models, place: int, name: str) -> None:
        self._models, self._place, self._name = models, place, name
        self.size = models.size(place, name)

    def read(self, offset: int, size: int) -> bytes:
        with Opened() as opened:
            return self._models.open(self._place, self._name, opened).read(offset, size)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


class _Gathered:
    """A table with its rows where the first tip has them; rows that it lacks are the first tip's own."""

    def __init__(self, source: Source, ours: Source, rows: Rows) -> None:
        self._source, self._ours, self._rows = source, ours, rows
        self._row = source.size // max(1, rows.count)
        self.size = ours.size

    def read(self, offset: int, size: int) -> bytes:
        first, last = offset // self._row, -(-(offset + size) // self._row)
        data = b"".join(self._runs(first, last))
        skip = offset - first * self._row
        return data[skip : skip + size]

    def _runs(self, first: int, last: int) -> Iterator[Data]:
        """Rows that follow each other there too, together: an encoded table decodes a chunk for each read."""
        start = first
        for index in range(first, last):
            ours, at = self._place(index)
            if index + 1 < last and self._place(index + 1) == (ours, at + 1):
                continue
            source, count = self._ours if ours else self._source, index + 1 - start
            yield view(source, (at + 1 - count) * self._row, count * self._row)
            start = index + 1

    def _place(self, index: int) -> tuple[bool, int]:
        """Whether a row is the first tip's own, and its number."""
        place = self._rows.places[index]
        return place is None, index if place is None else place

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


class Inputs:
    """One parameter of several models, and its statistics, to be read together. Safe to use from many threads."""

    def __init__(self, models: Models, name: str, places: Sequence[int], statistics: Sequence[Checkpoint] = ()) -> None:
        self._models, self._name, self._places, self._statistics = models, name, places, statistics
        self.entries: list[Entry] = [models.at(place).entries[name] for place in places]
        self.all_entries = [*self.entries, *(item.entries[name] for item in statistics)]
        self._kept: list[Source] | None = None

    @property
    def fit(self) -> bool:
        """Whether all of it may be held in memory."""
        return sum(entry.tensor.nbytes for entry in self.all_entries) <= _KEPT

    @contextmanager
    def open(self) -> Iterator[list[Source]]:
        """The parameter in each model, then its statistics. Raises ``ObjectError``."""
        kept = self._kept
        if kept is not None:
            yield kept
            return
        with Opened() as opened:
            models = [self._models.open(place, self._name, opened) for place in self._places]
            yield models + [item.source_among(self._name, opened) for item in self._statistics]

    def keep(self) -> None:
        """Read all of it, until it is forgotten."""
        if self._kept is None:
            with self.open() as sources:
                self._kept = list(_read_side_by_side(sources))

    def forget(self) -> None:
        self._kept = None


def _read_side_by_side(sources: Sequence[Source]) -> Iterator[Source]:
    whole = [memoryview(bytearray(source.size)) for source in sources]
    for at in range(0, max(source.size for source in sources), SPAN):
        for source, buffer in zip(sources, whole, strict=True):
            if at < source.size:
                source.readinto(at, buffer[at : at + SPAN])
    return map(BytesSource, whole)

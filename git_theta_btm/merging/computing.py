"""Computing: the bytes of merged parameters, each range when it is read. Memory is bounded by a few tiles and spans.

What a stored merge could repeat is computed by the same function that will: nothing else can be off by a bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from threading import Lock
from typing import Any

import numpy as np

from ..api import Checkpoint
from ..errors import FormatError, MergeConflict, ThetaError
from ..filters.encode import Candidate, width_of
from ..floats import REAL, TILE, Floats, narrow, widen
from ..manifest import Blob, Entry, spell
from ..maths.chance import key
from ..merges import BUILT_IN, Array, Linear, Measures, Sides, Tile
from ..planes import TYPES
from ..source import Source
from ..updates import Span, load
from ..updates.merge import parameters
from .resolve import BASE, Rows, Step

_KEPT = 64 << 20  # bytes of a parameter in all models that are held while it is measured, by each thread
_SPAN = 4 << 20  # bytes of each tip that are read at a time: a chunk of an encoded object is decoded whole


@dataclass(frozen=True, slots=True)
class Device:
    """Where tiles are computed: by NumPy, or by torch on a device of this name."""

    name: str = ""

    def arrays(self, tiles: Sequence[Floats]) -> list[Array]:
        if not self.name:
            return list(tiles)
        try:
            import array_api_compat  # noqa: F401 - by it strategies compute on what is not NumPy's
            import torch  # 3 s that only a device has to pay
        except ImportError as error:
            raise ThetaError(f"a device needs {error.name}: pip install 'git-theta-btm[torch]'") from None

        return [torch.from_numpy(np.ascontiguousarray(tile)).to(self.name) for tile in tiles]

    def numbers(self, array: Array) -> Floats:
        return np.asarray(array.cpu().numpy() if self.name else array)


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

    def source(self, place: int, name: str) -> Source:
        """A parameter's bytes, in the first tip's order of rows."""
        source: Source = _Reopened(self.at(place), name)
        rows = self.rows.get(place) if self.rows else None
        ours = self.tips[0].entries[name].tensor
        if rows and source.size != ours.nbytes and ours.shape:
            return _Gathered(source, _Reopened(self.tips[0], name), rows)
        return source


class _Reopened:
    """A parameter that is opened for each read, so that a model of thousands needs few descriptors."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._checkpoint, self._name = checkpoint, name
        self.size = checkpoint.entries[name].tensor.nbytes

    def read(self, offset: int, size: int) -> bytes:
        with self._checkpoint.source(self._name) as source:
            return source.read(offset, size)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


class _Kept:
    """A source that is read once, as a whole, when something of it is wanted."""

    def __init__(self, source: Source) -> None:
        self._source, self._data = source, b""
        self.size = source.size

    def read(self, offset: int, size: int) -> bytes:
        if len(self._data) != self.size:
            parts = (self._source.read(at, min(_SPAN, self.size - at)) for at in range(0, self.size, _SPAN))
            self._data = b"".join(parts)
        return self._data[offset : offset + size]

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
        data = b"".join(map(self._read_row, range(first, last)))
        skip = offset - first * self._row
        return data[skip : skip + size]

    def _read_row(self, index: int) -> bytes:
        place = self._rows.places[index]
        source, at = (self._ours, index) if place is None else (self._source, place)
        return source.read(at * self._row, self._row)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


class Computation:
    """One parameter that has to be computed: what it is made of, and how."""

    def __init__(self, step: Step, models: Models, device: Device) -> None:
        assert step.choice is not None
        self.step, self._models, self._device = step, models, device
        self.choice, self.strategy = step.choice, step.choice.strategy
        first = models.tips[0].entries[step.name]
        self.tensor, self.entry = first.tensor, first
        self._width = width_of(first.tensor)
        self._kind = _real(first)
        wanted = self.strategy.needs_base or self.strategy.takes_base
        self.has_base = wanted and models.base is not None and step.name in models.base.entries
        places = [*step.tips, *([BASE] if self.has_base else [])]
        self._sources: Sequence[Source] = [models.source(place, step.name) for place in places]
        self._entries = [models.at(place).entries[step.name] for place in places]
        self._keys = tuple(key(step.name, entry.digest) for entry in self._entries[: len(step.tips)])
        self._statistics = self._find_statistics()
        self._measures: Measures = {}

    def _find_statistics(self) -> list[tuple[Source, Entry]]:
        if not self.strategy.statistics or not self._models.statistics:
            return []
        given = [self._models.statistics[place] for place in self.step.tips]
        if any(self.step.name not in item.entries for item in given):
            return []
        found: list[tuple[Source, Entry]] = [
            (_Reopened(item, self.step.name), item.entries[self.step.name]) for item in given
        ]
        for _, entry in found:
            if not self.strategy.whole and entry.tensor.shape != self.tensor.shape:
                raise MergeConflict(f"{spell(self.step.name)} is {self.tensor}, and its statistics are {entry.tensor}")
        return found

    # -- how it is stored --------------------------------------------------------------------------------------------

    @property
    def recordable(self) -> bool:
        """Whether a stored merge could repeat it, bit for bit, from the tips as they are stored."""
        built_in = self.choice.name in BUILT_IN and self.strategy.exact and not self.strategy.whole
        plain = not self._device.name and not self.strategy.statistics and not self._models.rows
        alike = all(_real(entry) == self._kind for entry in self._entries)
        return built_in and plain and alike and not any(entry.view for entry in self._entries)

    @property
    def candidate(self) -> Candidate:
        """The object that repeats it. Only for what is recordable, after it was measured."""
        blobs = [entry.blob for entry in self._entries]
        tips = len(self.step.tips)
        if isinstance(self.strategy, Linear):
            (base,), (divisor,) = self._measures["base"], self._measures["divisor"]
            weights = [*self._measures["tips"], *([base] if self.has_base else [])]
            used = [(blob, weight) for blob, weight in zip(blobs, weights, strict=True) if weight] or [(blobs[0], 0.0)]
            return Candidate("linear", tuple(blob for blob, _ in used), _linear(self._kind, used, divisor))
        told: dict[str, Any] = {
            **parameters(self.choice.name, self.strategy, self._measures),
            "dtype": self._kind,
            "has_base": self.has_base,
            "keys": [item.hex() for item in self._keys],
            "weights": [float(weight).hex() for weight in self.choice.weights[:tips]],
        }
        return Candidate("merge", tuple(blobs), told)

    # -- what it is made of ------------------------------------------------------------------------------------------

    @property
    def sides(self) -> Sides:
        """What the strategy looks at."""
        shape, count = self.tensor.shape, self._sources[0].size // self._width
        if not self.strategy.whole and prod(shape) != count:  # two numbers in a complex one, or gaps between elements
            shape = (count,)
        return Sides(self.step.name, shape, self.choice.weights, self._pass, self.has_base)

    def measure(self, model: Measures) -> None:
        """Let the strategy look at the parameter; before anything is read. What fits is decoded once for all passes."""
        sources = self._sources
        if sum(source.size for source in sources) <= _KEPT:
            self._sources = [_Kept(source) for source in sources]
        with np.errstate(all="ignore"):
            self._measures = self.strategy.measure(self.sides, model)
        self._sources = sources

    def _pass(self) -> Iterator[Tile]:
        if self.strategy.whole:
            yield self._whole_tile()
            return
        count = self._sources[0].size // self._width
        for start in range(0, count, _SPAN // self._width):
            yield from (tile for _, tile in self._tiles(start, min(count, start + _SPAN // self._width)))

    def _tiles(self, start: int, stop: int) -> Iterator[tuple[int, Tile]]:
        """The tiles of some elements, each with its place among them."""
        parts = [self._patterns(source, entry, start, stop) for source, entry in self._inputs()]
        for at in range(0, stop - start, TILE):
            numbers = [widen(values[at : at + TILE], kind) for values, kind in parts]
            yield at, self._tile(numbers, start + at)

    def _inputs(self) -> list[tuple[Source, Entry]]:
        return [*zip(self._sources, self._entries, strict=True), *self._statistics]

    def _patterns(self, source: Source, entry: Entry, start: int, stop: int) -> tuple[Any, str]:
        width = width_of(entry.tensor)
        data = source.read(start * width, (stop - start) * width)
        return np.frombuffer(data, TYPES[width]), _real(entry)

    def _tile(self, numbers: Sequence[Floats], start: int) -> Tile:
        arrays = self._device.arrays(numbers)
        tips = len(self.step.tips)
        base = arrays[tips] if self.has_base else None
        statistics = tuple(arrays[tips + self.has_base :])
        return Tile(tuple(arrays[:tips]), self.choice.weights, base, start, self._keys, statistics)

    def _whole_tile(self) -> Tile:
        numbers = []
        for source, entry in self._inputs():
            values, kind = self._patterns(source, entry, 0, source.size // width_of(entry.tensor))
            numbers.append(_shaped(widen(values, kind), entry))
        return self._tile(numbers, 0)

    # -- what it becomes ---------------------------------------------------------------------------------------------

    def source(self) -> Source:
        """The merged bytes. Safe to read from many threads."""
        if self.strategy.whole:
            return _Whole(self.tensor.nbytes, self._make_whole)
        if self.recordable:
            candidate = self.candidate
            used = {entry.digest: source for entry, source in zip(self._entries, self._sources, strict=True)}
            bases = [used[blob.digest] for blob in candidate.bases]
            return _Computed(self.tensor.nbytes, self._width, partial(_predicted, candidate, bases))
        return _Computed(self.tensor.nbytes, self._width, self._make)

    def _make(self, span: Span) -> bytes:
        start = span.offset // self._width
        result = np.empty(span.count, TYPES[self._width])
        with np.errstate(all="ignore"):
            for at, tile in self._tiles(start, start + span.count):
                merged = self._device.numbers(self.strategy.combine(tile, self._measures))
                result[at : at + len(merged)] = narrow(merged, self._kind)
        return result.tobytes()

    def _make_whole(self) -> bytes:
        with np.errstate(all="ignore"):
            merged = self._device.numbers(self.strategy.combine(self._whole_tile(), self._measures))
        if self.tensor.strides is None:
            return narrow(np.ascontiguousarray(merged, np.float64).ravel(), self._kind).tobytes()
        values, kind = self._patterns(self._sources[0], self._entries[0], 0, self.tensor.nbytes // self._width)
        spaced = widen(values, kind)
        _shaped(spaced, self.entry)[...] = merged
        return narrow(spaced, self._kind).tobytes()


def _predicted(candidate: Candidate, bases: Sequence[Source], span: Span) -> bytes:
    predicted = load(candidate.kind).predict(span, bases, candidate.parameters)
    assert predicted is not None
    return predicted.tobytes()


class _Computed:
    """A source whose bytes are made when they are read."""

    def __init__(self, size: int, width: int, make: Any) -> None:
        self.size, self._width, self._make = size, width, make

    def read(self, offset: int, size: int) -> bytes:
        first = offset // self._width * self._width
        last = -(-(offset + size) // self._width) * self._width
        parts = []
        for at in range(first, last, _SPAN):
            parts.append(self._make(Span(at, min(_SPAN, last - at), self._width)))
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data[offset - first : offset - first + size] if len(data) != size else data

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


class _Whole:
    """A source that is made as a whole at the first read, and forgotten when its end has been read."""

    def __init__(self, size: int, make: Any) -> None:
        self.size, self._make, self._lock = size, make, Lock()
        self._data: bytes | None = None

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._data is None:
                self._data = self._make()
            data = self._data[offset : offset + size]
            if offset + size >= self.size:
                self._data = None
        if len(data) != size:
            raise FormatError(f"bytes {offset}..{offset + size} of a merged parameter of {self.size}")
        return data

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


def _real(entry: Entry) -> str:
    """The type of the real numbers that a tensor is made of."""
    return REAL.get(entry.tensor.dtype.name, entry.tensor.dtype.name)


def _linear(kind: str, used: Sequence[tuple[Blob, float]], divisor: float) -> dict[str, Any]:
    told: dict[str, Any] = {"dtype": kind, "weights": [float(weight).hex() for _, weight in used]}
    return told if divisor == 1 else {**told, "divisor": float(divisor).hex()}


def _shaped(numbers: Floats, entry: Entry) -> Floats:
    """A tensor's memory in its shape. Complex numbers have their two parts in a last dimension."""
    tensor = entry.tensor
    if tensor.dtype.name in REAL:
        return numbers.reshape(*tensor.shape, 2)
    if tensor.strides is None:
        return numbers.reshape(tensor.shape)
    steps = tuple(step * numbers.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, steps)

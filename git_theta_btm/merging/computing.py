"""Computing: the bytes of merged parameters, each range when it is read. Memory is bounded by a few tiles and spans.

What a stored merge could repeat is computed by the same function that will: nothing else can be off by a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from ..source import Data, Source, view
from ..updates import Span, load
from ..updates.merge import parameters
from .inputs import SPAN, Inputs, Models
from .resolve import BASE, Step


@dataclass(frozen=True, slots=True)
class Device:
    """Where tiles are computed: by NumPy, or by torch on a device of this name.

    Raises ``ThetaError`` if there is no such device, or no torch.
    """

    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            return
        try:
            import array_api_compat  # noqa: F401 - by it strategies compute on what is not NumPy's
            import torch  # 3 s that only a device has to pay

            torch.empty(0, device=self.name)
        except ImportError as error:
            raise ThetaError(f"a device needs {error.name}: pip install 'git-theta-btm[torch]'") from None
        except (RuntimeError, AssertionError) as error:  # in torch's words, which go on for pages
            why = str(error).partition("\n")[0]
            raise ThetaError(f"torch has no device {spell(self.name)} here: {why}"[:300]) from None

    def arrays(self, tiles: Sequence[Floats]) -> list[Array]:
        if not self.name:
            return list(tiles)
        import torch

        return [torch.from_numpy(np.ascontiguousarray(tile)).to(self.name) for tile in tiles]

    def numbers(self, array: Array) -> Floats:
        return np.asarray(array.cpu().numpy() if self.name else array)


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
        self.statistics = self._find_statistics()
        self._inputs = Inputs(models, step.name, places, self.statistics)
        self._entries = self._inputs.entries
        self._keys = tuple(key(step.name, entry.digest) for entry in self._entries[: len(step.tips)])
        self._lock = Lock()
        self._measures: Measures | None = None
        self.model: Measures = {}  # what the strategy found in all models

    def _find_statistics(self) -> Sequence[Checkpoint]:
        if not self.strategy.statistics or not self._models.statistics:
            return ()
        given = [self._models.statistics[place] for place in self.step.tips]
        if any(self.step.name not in item.entries for item in given):
            return ()
        for item in given:
            tensor = item.entries[self.step.name].tensor
            if not self.strategy.whole and tensor.shape != self.tensor.shape:
                raise MergeConflict(f"{spell(self.step.name)} is {self.tensor}, and its statistics are {tensor}")
        return given

    # -- how it is stored --------------------------------------------------------------------------------------------

    @cached_property
    def recordable(self) -> bool:
        """Whether a stored merge could repeat it, bit for bit, from the tips as they are stored."""
        built_in = self.choice.name in BUILT_IN and self.strategy.exact and not self.strategy.whole
        plain = not self._device.name and not self.strategy.statistics and not self._models.rows
        alike = all(_real(entry) == self._kind for entry in self._entries)
        return built_in and plain and alike and not any(entry.view for entry in self._entries)

    @cached_property
    def candidate(self) -> Candidate:
        """The object that repeats it. Only for what is recordable."""
        measures = self.measures
        blobs = [entry.blob for entry in self._entries]
        tips = len(self.step.tips)
        if isinstance(self.strategy, Linear):
            (base,), (divisor,) = measures["base"], measures["divisor"]
            weights = [*measures["tips"], *([base] if self.has_base else [])]
            used = [(blob, weight) for blob, weight in zip(blobs, weights, strict=True) if weight] or [(blobs[0], 0.0)]
            return Candidate("linear", tuple(blob for blob, _ in used), _linear(self._kind, used, divisor))
        told: dict[str, Any] = {
            **parameters(self.choice.name, self.strategy, measures),
            "dtype": self._kind,
            "has_base": self.has_base,
            "keys": [item.hex() for item in self._keys],
            "weights": [float(weight).hex() for weight in self.choice.weights[:tips]],
        }
        return Candidate("merge", tuple(blobs), told)

    # -- what it is made of ------------------------------------------------------------------------------------------

    @property
    def small(self) -> bool:
        """Whether all that it is made of is held in memory while it is made."""
        return self._inputs.fit

    @property
    def sides(self) -> Sides:
        """What the strategy looks at."""
        shape, count = self.tensor.shape, self.tensor.nbytes // self._width
        if not self.strategy.whole and prod(shape) != count:  # two numbers in a complex one, or gaps between elements
            shape = (count,)
        return Sides(self.step.name, shape, self.choice.weights, self._pass, self.has_base)

    @property
    def measures(self) -> Measures:
        """What the strategy measured of the parameter, now if it has not yet; ``model`` has to be there before."""
        with self._lock:
            if self._measures is None:
                sides = replace(self.sides, open=self._passes_in_memory) if self.small else self.sides
                with np.errstate(all="ignore"):
                    self._measures = self.strategy.measure(sides, self.model)
            return self._measures

    def _passes_in_memory(self) -> Iterator[Tile]:
        self._inputs.keep()
        return self._pass()

    def _pass(self) -> Iterator[Tile]:
        if self.strategy.whole:
            yield self._whole_tile()
            return
        count, step = self.tensor.nbytes // self._width, SPAN // self._width
        for start in range(0, count, step):
            yield from (tile for _, tile in self._tiles(start, min(count, start + step)))

    def _tiles(self, start: int, stop: int) -> Iterator[tuple[int, Tile]]:
        """The tiles of some elements, each with its place among them."""
        with self._inputs.open() as sources:
            parts = [
                _patterns(source, entry, start, stop)
                for source, entry in zip(sources, self._inputs.all_entries, strict=True)
            ]
        for at in range(0, stop - start, TILE):
            numbers = [widen(values[at : at + TILE], kind) for values, kind in parts]
            yield at, self._tile(numbers, start + at)

    def _tile(self, numbers: Sequence[Floats], start: int) -> Tile:
        arrays = self._device.arrays(numbers)
        tips = len(self.step.tips)
        base = arrays[tips] if self.has_base else None
        statistics = tuple(arrays[tips + self.has_base :])
        return Tile(tuple(arrays[:tips]), self.choice.weights, base, start, self._keys, statistics)

    def _whole_tile(self) -> Tile:
        numbers = []
        with self._inputs.open() as sources:
            for source, entry in zip(sources, self._inputs.all_entries, strict=True):
                values, kind = _patterns(source, entry, 0, source.size // width_of(entry.tensor))
                numbers.append(_shaped(widen(values, kind), entry))
        return self._tile(numbers, 0)

    # -- what it becomes ---------------------------------------------------------------------------------------------

    def source(self) -> Source:
        """The merged bytes; what is small is measured when it is read. Safe to read from many threads."""
        if self.strategy.whole:
            return _Whole(self.tensor.nbytes, self._make_whole, self._inputs.forget)
        at_once = self.small and self.strategy.looks  # it is held in memory then, and best taken from there whole
        return _Computed((self.tensor.nbytes, self._width), self._make, self._inputs.forget, at_once=at_once)

    def _make(self, span: Span) -> Data:
        if self.recordable:
            return self._repeated(span)
        measures = self.measures
        start = span.offset // self._width
        result = np.empty(span.count, TYPES[self._width])
        with np.errstate(all="ignore"):
            for at, tile in self._tiles(start, start + span.count):
                merged = self._device.numbers(self.strategy.combine(tile, measures))
                result[at : at + len(merged)] = narrow(merged, self._kind)
        return result.data.cast("B")

    def _repeated(self, span: Span) -> Data:
        """What the object that records it will be decoded to."""
        candidate = self.candidate
        with self._inputs.open() as sources:
            used = {entry.digest: source for entry, source in zip(self._entries, sources, strict=True)}
            bases = [used[blob.digest] for blob in candidate.bases]
            predicted = load(candidate.kind).predict(span, bases, candidate.parameters)
        assert predicted is not None
        return predicted.data.cast("B")

    def _make_whole(self) -> bytes:
        measures = self.measures
        with np.errstate(all="ignore"):
            merged = self._device.numbers(self.strategy.combine(self._whole_tile(), measures))
        if self.tensor.strides is None:
            return narrow(np.ascontiguousarray(merged, np.float64).ravel(), self._kind).tobytes()
        with self._inputs.open() as (first, *_):
            values, kind = _patterns(first, self.entry, 0, self.tensor.nbytes // self._width)
        spaced = widen(values, kind)
        _shaped(spaced, self.entry)[...] = merged
        return narrow(spaced, self._kind).tobytes()


class _Computed:
    """A source whose bytes are made when they are read; ``done`` is called when its end has been read."""

    def __init__(
        self, size: tuple[int, int], make: Callable[[Span], Data], done: Callable[[], None], *, at_once: bool
    ) -> None:
        """``size`` is in bytes, of all and of an element; ``at_once`` whether it is best read in one go."""
        (self.size, self._width), self._make, self._done, self.at_once = size, make, done, at_once

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.view(offset, size))

    def view(self, offset: int, size: int) -> Data:
        first = offset // self._width * self._width
        last = -(-(offset + size) // self._width) * self._width
        parts = [self._make(Span(at, min(SPAN, last - at), self._width)) for at in range(first, last, SPAN)]
        if last == self.size:
            self._done()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data[offset - first : offset - first + size] if len(data) != size else data

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.view(offset, len(buffer))


class _Whole:
    """A source that is made as a whole at the first read, and forgotten when its end has been read."""

    def __init__(self, size: int, make: Callable[[], bytes], done: Callable[[], None]) -> None:
        self.size, self._make, self._done, self._lock = size, make, done, Lock()
        self._data: bytes | None = None

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._data is None:
                self._data = self._make()
                self._done()
            data = self._data[offset : offset + size]
            if offset + size >= self.size:
                self._data = None
        if len(data) != size:
            raise FormatError(f"bytes {offset}..{offset + size} of a merged parameter of {self.size}")
        return data

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


def _patterns(source: Source, entry: Entry, start: int, stop: int) -> tuple[Any, str]:
    """The bit patterns of some elements, and the type that they are of."""
    width = width_of(entry.tensor)
    return np.frombuffer(view(source, start * width, (stop - start) * width), TYPES[width]), _real(entry)


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

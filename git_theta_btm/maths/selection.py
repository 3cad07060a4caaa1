"""Selection: the k-th largest magnitude among any number of elements, exactly, in passes that hold little of them.

IEEE magnitudes have the order of their bit patterns, so a histogram of the leading bits tells which of them the answer
begins with. Each pass learns 15 bits more, until the elements that are left fit into memory. Integers are counted and
nothing is added up, so the answer has no rounding and no order. NaN counts as an infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Passes: TypeAlias = Callable[[], Iterable[Iterable[Any]]]  # starts a pass over tiles: an array for each stream
Bits: TypeAlias = npt.NDArray[np.int64]
Where: TypeAlias = tuple[int, int]  # a stream, and the leading bits of some of its elements

GATHERED = 1 << 20  # elements held at a time: 8 MiB. Partitioning an element takes as long as four passes over it
_STEP = 15  # bits a pass: its 256 KiB of counters stay in the second-level cache; 16 take a fifth longer
_BITS = 63  # of a magnitude: all but the sign
_INFINITE = 0x7FF << 52


@dataclass(slots=True)
class _Quest:
    """The search for the magnitude of one rank, among the ``count`` of a stream that begin with ``prefix``."""

    stream: int
    rank: int
    count: int
    prefix: int = 0

    @property
    def where(self) -> Where:
        return self.stream, self.prefix

    @property
    def value(self) -> float:
        """The magnitude, once its prefix is whole."""
        return float(np.int64(min(self.prefix, _INFINITE)).view(np.float64))

    def narrow(self, counts: Bits) -> None:
        """Go on with those of the next bits that hold the rank; ``counts`` says how many each value of them has."""
        down = np.cumsum(counts[::-1])
        place = int(np.searchsorted(down, self.rank))
        bucket = len(counts) - 1 - place
        self.rank -= int(down[place - 1]) if place else 0
        self.count = int(counts[bucket])
        self.prefix = self.prefix * len(counts) + bucket


def share(density: float, size: int) -> int:
    """How many of ``size`` elements a density keeps: rounded down, but one at least, unless the density is 0."""
    return min(size, max(1, int(density * size))) if density else 0


def last(kept: int, size: int) -> int:
    """The rank of the least that is kept: beyond the last where all are, so that it takes no pass to find it."""
    return kept if kept < size else size + 1


def largest(passes: Passes, size: int, ranks: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
    """For each stream of ``size`` float64 elements its magnitudes of some ranks; the largest magnitude has rank 1.

    Above the first is infinity and below the last is 0, which takes no pass.
    """
    quests = [[_Quest(stream, rank, size) for rank in wanted] for stream, wanted in enumerate(ranks)]
    for quest in chain.from_iterable(quests):
        quest.prefix = 0 if quest.rank > 0 else _INFINITE
    unknown = [quest for quest in chain.from_iterable(quests) if 0 < quest.rank <= size]
    shift = _BITS
    while shift and sum(quest.count for quest in unknown) > GATHERED:
        step = min(_STEP, shift)
        _narrow(passes, unknown, shift, step)
        shift -= step
    if shift and unknown:
        _pick(passes, unknown, shift)
    return [tuple(quest.value for quest in each) for each in quests]


def _narrow(passes: Passes, quests: Sequence[_Quest], shift: int, step: int) -> None:
    """One pass that learns ``step`` bits more of what every quest looks for."""
    counts = {quest.where: np.zeros(1 << step, np.int64) for quest in quests}
    for where, bits in _inside(passes, list(counts), shift):
        keys = bits >> (shift - step)
        keys &= (1 << step) - 1
        counts[where] += np.bincount(keys, minlength=1 << step)
    for quest in quests:
        quest.narrow(counts[quest.where])


def _pick(passes: Passes, quests: Sequence[_Quest], shift: int) -> None:
    """One pass that gathers all that is left."""
    parts: dict[Where, list[Bits]] = {quest.where: [] for quest in quests}
    for where, bits in _inside(passes, list(parts), shift):
        parts[where].append(bits)
    for quest in quests:
        left = np.concatenate(parts[quest.where])
        place = len(left) - quest.rank
        left.partition(place)
        quest.prefix = int(left[place])


def _inside(passes: Passes, wanted: Sequence[Where], shift: int) -> Iterator[tuple[Where, Bits]]:
    """Tile by tile, the magnitudes' bits of each stream that begin with a prefix that is wanted of it."""
    for arrays in passes():
        for stream, array in enumerate(arrays):
            mine = [where for where in wanted if where[0] == stream]
            if mine:
                bits = _bits(array)
                yield from ((where, bits if shift == _BITS else bits[bits >> shift == where[1]]) for where in mine)


def _bits(array: Any) -> Bits:
    """The bit patterns of an array's magnitudes, wherever it lives."""
    host = array.cpu() if hasattr(array, "cpu") else array
    bits: Bits = np.abs(np.asarray(host, np.float64)).view(np.int64)
    return bits

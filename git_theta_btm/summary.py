"""What there is to say of one parameter: its type, how it is stored, and what its numbers are like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import inf, sqrt
from typing import TYPE_CHECKING

from .api import Checkpoint, naming
from .arrays import array, numpy_type, rows
from .errors import CorruptObject, ThetaError
from .manifest import PACKED, Digest, Entry, Manifest, spell
from .tensor import Tensor

if TYPE_CHECKING:
    from .arrays import Array

_PART = 4 << 20  # bytes that are looked at together: one chunk of an encoded object


@dataclass(frozen=True, slots=True)
class Link:
    """One object on the way to a parameter's bytes: what it is, its name, its size, and the blob that it gives."""

    kind: str
    oid: Digest
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Statistics:
    """Taken over the finite ones of ``count`` numbers; those that are not are counted. None where there are none."""

    count: int
    nonfinite: int = 0
    zeros: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    deviation: float | None = None


def chain(manifest: Manifest, entry: Entry) -> list[Link]:
    """How a parameter is stored: its own object, that of its base, and so on, each once; none for a view of chunks."""
    lines = {stored.rest[0]: stored for stored in manifest.objects if stored.encoded}
    raw = {stored.oid: stored.size for stored in manifest.objects if stored.kind == "raw"}
    links: dict[Digest, Link] = {}
    waiting = [] if entry.view or not entry.blob.size else [entry.digest]
    while waiting:
        digest = waiting.pop(0)
        if digest in links:
            continue
        if stored := lines.get(digest):
            links[digest] = Link(stored.kind, stored.oid, stored.size, digest)
            waiting += map(Digest, stored.rest[1:])
        else:
            size = raw.get(digest, entry.blob.size)  # a base without a line of its own is another parameter
            links[digest] = Link("packed" if size <= PACKED else "raw", digest, size, digest)
    return list(links.values())


def statistics(checkpoint: Checkpoint, name: str, start: int | None = None, stop: int | None = None) -> Statistics:
    """Of a parameter, whose bytes are compared with its digest, or of some of its rows alone, 4 MiB at a time.

    Raises ``ObjectError`` if an object is missing or corrupt, ``ThetaError`` for what has no order, as complex numbers.
    """
    moments = _Moments()
    whole = start is None and stop is None
    for part in _whole(checkpoint, name) if whole else _rows(checkpoint, name, start, stop):
        if part.dtype.kind == "c":
            raise ThetaError(f"parameter {spell(name)}: complex numbers have no minimum and no maximum")
        moments.add(part)
    return moments.result()


def _whole(checkpoint: Checkpoint, name: str) -> Iterator[Array]:
    """All numbers, in the order of the file. Raises ``CorruptObject`` after the last if they are not the right ones."""
    entry = checkpoint.entries[name]
    if entry.tensor.strides is not None:  # there may be gaps between them
        yield checkpoint[name]
        return
    digest = sha256()
    with naming(name):
        step = _PART // numpy_type(entry.tensor.dtype.name).itemsize
        flat = Tensor(entry.tensor.dtype, (entry.tensor.numel,))
        with checkpoint.source(name) as source:
            for start in range(0, entry.tensor.numel, step):
                part, offset = rows(flat, start, start + step)
                data = source.read(offset, part.nbytes)
                digest.update(data)
                yield array(data, part)
        if digest.hexdigest() != entry.digest:
            raise CorruptObject("its bytes have another SHA-256: run 'git theta fsck'")


def _rows(checkpoint: Checkpoint, name: str, start: int | None, stop: int | None) -> Iterator[Array]:
    tensor = checkpoint.entries[name].tensor
    if not tensor.shape:
        raise ThetaError(f"parameter {spell(name)}: a tensor {tensor} has no rows")
    first, last, _ = slice(start, stop).indices(tensor.shape[0])
    step = max(1, _PART * tensor.shape[0] // max(1, tensor.nbytes))
    if tensor.strides is not None:  # rows of a transposed matrix lie all over it: it is read once, as a whole
        step = max(1, tensor.shape[0])
    for row in range(first, last, step):
        yield checkpoint.slice(name, row, min(row + step, last))


class _Moments:
    """Minimum, maximum, mean and variance of numbers that come in parts.

    Parts are joined as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979): no sum of squares, which would cancel.
    """

    def __init__(self) -> None:
        self.count = self.nonfinite = self.zeros = 0
        self.lowest, self.highest, self.mean, self.squares = inf, -inf, 0.0, 0.0

    def add(self, part: Array) -> None:
        import numpy as np

        numbers = part.astype(np.float64).ravel()
        finite = numbers[np.isfinite(numbers)]
        self.nonfinite += numbers.size - finite.size
        self.zeros += finite.size - int(np.count_nonzero(finite))
        if not finite.size:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(finite.mean())
            squares = float(((finite - mean) ** 2).sum())
        total = self.count + finite.size
        distance = mean - self.mean
        self.squares += squares + distance * distance * self.count * finite.size / total
        self.mean += distance * finite.size / total
        self.count = total
        self.lowest, self.highest = min(self.lowest, float(finite.min())), max(self.highest, float(finite.max()))

    def result(self) -> Statistics:
        if not self.count:
            return Statistics(self.nonfinite, self.nonfinite)
        numbers = (self.lowest, self.highest, self.mean, sqrt(self.squares / self.count))
        return Statistics(self.count + self.nonfinite, self.nonfinite, self.zeros, *numbers)

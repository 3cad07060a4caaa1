"""Comparing: what training changed between two models, in numbers, parameter by parameter and layer by layer.

Parameters with the same digest are not read. Of those that differ, pairs in which one number is not finite are counted
and left out of every sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from math import nan, sqrt
from typing import TYPE_CHECKING, Any, Literal

from ..api import Checkpoint
from ..changes import Change
from ..errors import CorruptObject, ThetaError
from ..manifest import Entry, order, spell
from ..parallel import map_threads
from .layers import prefix

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.floating[Any]]

By = Literal["layer", "parameter"]
_SPAN = 1 << 19  # elements of each model that are in memory at a time: 4 MiB in float64


@dataclass(slots=True)
class Sums:
    """What is summed over pairs of numbers. ``changed`` pairs differ, ``skipped`` ones are not both finite."""

    changed: int = 0
    skipped: int = 0
    absolute: float = 0.0
    squares: float = 0.0
    largest: float = 0.0
    before: float = 0.0  # squares of the numbers of the first model
    after: float = 0.0
    product: float = 0.0

    def add(self, other: Sums) -> None:
        """Take in the sums of other pairs."""
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            setattr(self, item.name, max(mine, theirs) if item.name == "largest" else mine + theirs)


@dataclass(frozen=True, slots=True)
class Row:
    """A parameter or a layer. ``parameters`` are its tensors, ``differing`` those of them that differ, ``incomparable``
    those of these that no numbers tell about: of other shapes, types without numbers, or in one model only.

    ``relative``, ``cosine`` and all sums are over what differs alone: the rest is not read.
    """

    name: str
    parameters: int = 1
    differing: int = 0
    incomparable: int = 0
    elements: int = 0
    sums: Sums = field(default_factory=Sums)

    @property
    def l2(self) -> float:
        """The norm of the difference."""
        return sqrt(self.sums.squares)

    @property
    def relative(self) -> float:
        """The norm of the difference over that of the first model; 0 if there is none, NaN if that was all zeros."""
        if not self.sums.squares:
            return 0.0
        return sqrt(self.sums.squares / self.sums.before) if self.sums.before else nan

    @property
    def cosine(self) -> float:
        """Of the angle between the two; 1 if there is no difference, NaN if one is all zeros."""
        if not self.sums.squares:
            return 1.0
        norms = sqrt(self.sums.before) * sqrt(self.sums.after)
        return max(-1.0, min(1.0, self.sums.product / norms)) if norms else nan

    def values(self) -> dict[str, object]:
        """The row as names and values; None for what is not a number."""
        names = ("changed", "skipped", "absolute", "l2", "largest", "relative", "cosine")
        numbers = {name: getattr(self, name) if hasattr(self, name) else getattr(self.sums, name) for name in names}
        told = {name: None if value != value else value for name, value in numbers.items()}
        head = {name: getattr(self, name) for name in ("name", "parameters", "differing", "incomparable", "elements")}
        return head | told


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows in natural order of their names, the parameters of one model only, and the sum of all."""

    rows: tuple[Row, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    total: Row


def compare(
    one: Checkpoint, other: Checkpoint, by: By, progress: Callable[[int, int], None] = lambda done, total: None
) -> Comparison:
    """What differs from ``one`` to ``other``. Memory is bounded by a few spans of each, whatever the models' size.

    Raises ``ObjectError`` if what has to be read is missing or corrupt.
    """
    names = sorted({*one.entries, *other.entries}, key=order)
    changes = [Change(one.entries.get(name), other.entries.get(name)) for name in names]
    done = 0

    def measured(change: Change) -> Row:
        nonlocal done
        row = _row(one, other, change)
        done += row.elements
        progress(done, total)
        return row

    total = sum(_elements(change) for change in changes)
    rows = map_threads(measured, changes)
    return Comparison(
        tuple(rows if by == "parameter" else _grouped(rows)),
        tuple(change.name for change in changes if change.kind == "added"),
        tuple(change.name for change in changes if change.kind == "removed"),
        _joined("total", rows),
    )


def _elements(change: Change) -> int:
    side = change.new or change.old
    return side.tensor.numel if side else 0


def _grouped(rows: Iterable[Row]) -> list[Row]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(prefix(row.name), []).append(row)
    return [_joined(name, groups[name]) for name in sorted(groups, key=order)]


def _joined(name: str, rows: Sequence[Row]) -> Row:
    sums = Sums()
    for row in rows:
        sums.add(row.sums)
    parameters, differing = (sum(getattr(row, item) for row in rows) for item in ("parameters", "differing"))
    return Row(name, parameters, differing, sum(r.incomparable for r in rows), sum(r.elements for r in rows), sums)


def _row(one: Checkpoint, other: Checkpoint, change: Change) -> Row:
    if not change:
        return Row(change.name, elements=_elements(change))
    kinds = _kinds(change.old, change.new)
    if kinds is None:
        return Row(change.name, differing=1, incomparable=1, elements=_elements(change))
    return Row(change.name, differing=1, elements=_elements(change), sums=_sums(one, other, change.name))


def _kinds(old: Entry | None, new: Entry | None) -> tuple[str, str] | None:
    """What the numbers of both are; None if they cannot be compared one by one."""
    if old is None or new is None:
        return None
    if (old.tensor.shape, old.tensor.strides) != (new.tensor.shape, new.tensor.strides):
        return None
    kinds = _kind(old), _kind(new)
    return (kinds[0], kinds[1]) if kinds[0] and kinds[1] else None


def _kind(entry: Entry) -> str:
    """The type of the real numbers that a tensor is made of; empty if it is none that has numbers."""
    from ..arrays import numpy_type
    from ..floats import REAL, is_float

    name = REAL.get(entry.tensor.dtype.name, entry.tensor.dtype.name)
    if is_float(name):
        return name
    try:
        return name if entry.tensor.dtype.block == 1 and numpy_type(name).kind in "iub" else ""
    except ThetaError:
        return ""


def _sums(one: Checkpoint, other: Checkpoint, name: str) -> Sums:
    """The sums over one parameter, whose bytes are compared with their digests on the way."""
    import numpy as np

    sides = (one, one.entries[name]), (other, other.entries[name])
    widths = [_width(entry) for _, entry in sides]
    count = sides[0][1].tensor.nbytes // widths[0]
    hashes = sha256(), sha256()
    sums = Sums()
    with one.source(name) as left, other.source(name) as right:
        for start in range(0, count, _SPAN):
            size = min(_SPAN, count - start)
            data = [source.read(start * w, size * w) for source, w in zip((left, right), widths, strict=True)]
            for digest, part in zip(hashes, data, strict=True):
                digest.update(part)
            old, new = (_numbers(part, entry) for part, (_, entry) in zip(data, sides, strict=True))
            with np.errstate(all="ignore"):
                sums.add(_sums_of(old, new))
    for digest, (_, entry) in zip(hashes, sides, strict=True):
        if digest.hexdigest() != entry.digest:
            raise CorruptObject(f"parameter {spell(name)}: its bytes have another SHA-256: run 'git theta fsck'")
    return sums


def _width(entry: Entry) -> int:
    from ..floats import REAL

    return entry.tensor.dtype.size // (2 if entry.tensor.dtype.name in REAL else 1)


def _numbers(data: bytes, entry: Entry) -> Numbers:
    import numpy as np

    from ..arrays import numpy_type
    from ..floats import is_float, widen
    from ..planes import TYPES

    kind = _kind(entry)
    if is_float(kind):
        return widen(np.frombuffer(data, TYPES[_width(entry)]), kind)
    return np.frombuffer(data, numpy_type(kind)).astype(np.float64)


def _sums_of(old: Numbers, new: Numbers) -> Sums:
    import numpy as np

    finite = np.isfinite(old) & np.isfinite(new)
    skipped = old.size - int(np.count_nonzero(finite))
    if skipped:
        old, new = old[finite], new[finite]
    difference = np.abs(new - old)
    return Sums(
        changed=int(np.count_nonzero(difference)),
        skipped=skipped,
        absolute=float(difference.sum()),
        squares=float(np.dot(difference, difference)),
        largest=float(difference.max(initial=0.0)),
        before=float(np.dot(old, old)),
        after=float(np.dot(new, new)),
        product=float(np.dot(old, new)),
    )

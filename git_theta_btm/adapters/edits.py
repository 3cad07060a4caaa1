"""Edits: how a parameter's new value follows from its old one and a few tensors that come with an update.

Whatever the update modules can predict is computed by them, so that storing the result takes no residual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..errors import CorruptObject, ThetaError
from ..floats import MANTISSA, narrow, widen
from ..planes import TYPES, Values
from ..source import Source, check_range
from ..tensor import Tensor
from ..updates import Span, load

Make = Callable[[Source, Span], Values]


class Computed:
    """A tensor that is computed where it is read, from the same elements of ``base``."""

    def __init__(self, base: Source, tensor: Tensor, make: Make) -> None:
        self._base, self._make, self._width = base, make, tensor.dtype.size
        self.size = tensor.nbytes

    def read(self, offset: int, size: int) -> bytes:
        check_range(offset, size, self.size)
        start = offset // self._width * self._width
        end = -(-(offset + size) // self._width) * self._width
        data = self._make(self._base, Span(start, end - start, self._width)).tobytes()
        return data[offset - start :][:size]

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that comes with an update, under the name that it has there."""

    name: str
    tensor: Tensor
    source: Source

    def data(self) -> bytes:
        return self.source.read(0, self.source.size)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change as the update asks for it.

    ``target`` is the parameter's name as the update spells it. Operands: for ``low_rank`` the matrices B and A, for
    ``ia3`` one vector, for ``sparse`` flat indices and values, for ``dense`` the tensor itself. ``transposed`` says
    that the weight is kept as (in, out).
    """

    target: str
    kind: str
    operands: tuple[Operand, ...]
    scale: float = 1.0
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """An edit made to fit one parameter: ``value`` gives the new bytes, given the old ones.

    ``kind``, ``parameters`` and ``operands`` say how the result is stored in terms of the old value; an empty kind
    that this is left to the filter.
    """

    value: Callable[[Source], Source]
    kind: str = ""
    operands: tuple[Operand, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


def recipe(edit: Edit, tensor: Tensor) -> Recipe:
    """How ``edit`` changes a parameter of this type and shape. Raises ``ThetaError`` if it does not fit."""
    return _KINDS[edit.kind](edit, tensor)


def _check_floats(edit: Edit, *tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype.name not in MANTISSA:
            raise ThetaError(f"{edit.target}: cannot compute with {tensor.dtype.name}")


def _low_rank(edit: Edit, tensor: Tensor) -> Recipe:
    left, right = edit.operands
    _check_floats(edit, tensor, left.tensor)
    (rank, *inner), outer = right.tensor.shape, left.tensor.shape
    if outer[1:2] != (rank,) or prod(outer[2:]) != 1 or left.tensor.dtype != right.tensor.dtype or not rank:
        raise ThetaError(f"{edit.target}: {left.name} is {left.tensor}, which does not fit {right.tensor}")
    shape, transposed = _orient(edit, tensor, (outer[0], *inner))
    return _predicted(
        "low_rank",
        edit,
        tensor,
        factors=right.tensor.dtype.name,
        columns=prod(shape[1:]),
        rank=rank,
        scale=edit.scale.hex(),
        transposed=transposed,
    )


def _ia3(edit: Edit, tensor: Tensor) -> Recipe:
    (vector,) = edit.operands
    _check_floats(edit, tensor, vector.tensor)
    shape = tensor.shape
    if len(shape) == 1 and vector.tensor.numel == shape[0]:
        axis = 1
    elif len(shape) == 2 and len(vector.tensor.shape) == 2 and 1 in vector.tensor.shape:
        outer = vector.tensor.shape[1] == 1
        scaled = (vector.tensor.numel, None) if outer else (None, vector.tensor.numel)
        shape, transposed = _orient(edit, tensor, scaled)
        axis = 0 if outer != transposed else 1
    else:
        raise _misfit(edit, tensor, vector.tensor.shape)
    return _predicted("ia3", edit, tensor, vector=vector.tensor.dtype.name, columns=shape[-1], axis=axis)


def _orient(edit: Edit, tensor: Tensor, made: tuple[int | None, ...]) -> tuple[tuple[int, ...], bool]:
    """The sizes of the parameter as it lies in memory, and whether a product of the sizes ``made`` (None: any) must be
    transposed to fit. The edit's word decides only where both would."""
    shape, flipped = tensor.shape, False
    if tensor.strides is not None:
        if len(shape) != 2 or tensor.strides != (1, shape[0]):
            raise ThetaError(f"{edit.target}: {tensor} does not lie in memory in one piece")
        flipped = True
    for transposed in (edit.transposed, not edit.transposed) if len(shape) == 2 else (False,):
        sizes = made[::-1] if transposed else made
        if len(sizes) == len(shape) and all(size in (None, dim) for size, dim in zip(sizes, shape, strict=True)):
            return (shape[::-1] if flipped else shape), transposed != flipped
    raise _misfit(edit, tensor, made)


def _misfit(edit: Edit, tensor: Tensor, made: Sequence[int | None]) -> ThetaError:
    sizes = ",".join("*" if size is None else str(size) for size in made)
    names = " and ".join(item.name for item in edit.operands)
    return ThetaError(f"{edit.target}: {names} are for a parameter of [{sizes}], this one is {tensor}")


def _predicted(kind: str, edit: Edit, tensor: Tensor, **parameters: Any) -> Recipe:
    fields = {"dtype": tensor.dtype.name, **parameters}
    sources = [item.source for item in edit.operands]
    predict = load(kind).predict

    def make(base: Source, span: Span) -> Values:
        try:
            values = predict(span, [base, *sources], fields)
        except CorruptObject as error:  # beyond what an object may ask of whoever reads it
            raise CorruptObject(f"{edit.target}: {error}") from None
        assert values is not None  # these kinds always predict
        return values

    return Recipe(lambda base: Computed(base, tensor, make), kind, edit.operands, fields)


def _sparse(edit: Edit, tensor: Tensor) -> Recipe:
    """Adds values at flat positions, counted in the order of memory, in float64; rounded once."""
    indices, values = edit.operands
    _check_floats(edit, tensor, values.tensor)
    positions = np.frombuffer(indices.data(), "<i8") if indices.tensor.dtype.name == "I64" else None
    if positions is None or indices.tensor.numel != values.tensor.numel or tensor.strides is not None:
        raise ThetaError(f"{edit.target}: {indices.tensor} positions and {values.tensor} values for {tensor}")
    order = np.argsort(positions, kind="stable")
    places = positions[order]
    if len(places) and (places[0] < 0 or places[-1] >= tensor.numel or (places[1:] == places[:-1]).any()):
        raise ThetaError(f"{edit.target}: a position lies outside {tensor}, or stands twice")
    patterns = np.frombuffer(values.data(), TYPES[values.tensor.dtype.size])[order]
    added = widen(patterns, values.tensor.dtype.name)

    def make(base: Source, span: Span) -> Values:
        result = np.frombuffer(base.read(span.offset, span.size), TYPES[span.width]).copy()
        start = span.offset // span.width
        first, last = np.searchsorted(places, [start, start + span.count])
        at = places[first:last] - start
        with np.errstate(over="ignore", invalid="ignore"):
            result[at] = narrow(widen(result[at], tensor.dtype.name) + added[first:last], tensor.dtype.name)
        return result

    return Recipe(lambda base: Computed(base, tensor, make), "delta")


def _dense(edit: Edit, tensor: Tensor) -> Recipe:
    """Takes the update's tensor as it is, rounded to the parameter's type if that is another."""
    (new,) = edit.operands
    if (new.tensor.shape, new.tensor.strides) != (tensor.shape, tensor.strides):
        raise _misfit(edit, tensor, new.tensor.shape)
    if new.tensor.dtype == tensor.dtype:
        return Recipe(lambda _: new.source)
    _check_floats(edit, tensor, new.tensor)
    width, name = new.tensor.dtype.size, new.tensor.dtype.name

    def make(_: Source, span: Span) -> Values:
        data = new.source.read(span.offset // span.width * width, span.count * width)
        return narrow(widen(np.frombuffer(data, TYPES[width]), name), tensor.dtype.name)

    return Recipe(lambda base: Computed(base, tensor, make))


_KINDS: Mapping[str, Callable[[Edit, Tensor], Recipe]] = {
    "low_rank": _low_rank,
    "ia3": _ia3,
    "sparse": _sparse,
    "dense": _dense,
}

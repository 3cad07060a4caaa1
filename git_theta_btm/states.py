"""A state dict as the safetensors file that it would be saved as, without that file and without a copy of the model.

What the library would refuse is refused, and what it would write is what is read here, byte for byte.
Specification: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from .errors import ThetaError
from .formats.safetensors import MAX_HEADER
from .source import Source, check_range

# What NumPy, ml_dtypes and torch call a type, what safetensors calls it, and last in its files what is first here.
_TYPES = {
    "bool": "BOOL", "float4_e2m1fn_x2": "F4", "uint8": "U8", "int8": "I8", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "int16": "I16", "uint16": "U16", "float16": "F16", "bfloat16": "BF16",
    "int32": "I32", "uint32": "U32", "float32": "F32", "complex64": "C64", "float64": "F64", "int64": "I64",
    "uint64": "U64",
}  # fmt: skip
_RANKS = {kind: rank for rank, kind in enumerate(_TYPES.values())}


@dataclass(frozen=True, slots=True)
class _Value:
    """One tensor: ``memory`` is what is to be stored; ``device`` and ``address`` say whose memory it is, if it is
    one that others must not share."""

    name: str
    kind: str
    shape: tuple[int, ...]
    memory: memoryview
    device: str = ""
    address: int = 0

    @property
    def end(self) -> int:
        return self.address + len(self.memory)


def safetensors(state: Mapping[str, object], metadata: Mapping[str, str] | None = None) -> Source:
    """The file, over the memory of its NumPy arrays and torch tensors, which must not change while it is read.

    Tensors on other devices are copied to this one; so are arrays that are not contiguous or not little-endian.
    Raises ``ThetaError``, naming the parameter, for what safetensors does not store.
    """
    values = [_value(name, value) for name, value in state.items()]
    _check_shared(values)
    values.sort(key=lambda value: (-_RANKS[value.kind], value.name))
    return _Joined([memoryview(_header(values, metadata)), *(value.memory for value in values)])


def _header(values: Sequence[_Value], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, object] = {}
    if metadata is not None:
        if not all(isinstance(word, str) for pair in metadata.items() for word in pair):
            raise ThetaError("the metadata of a safetensors file are texts by name: say str(...)")
        header["__metadata__"] = dict(sorted(metadata.items()))
    position = 0
    for value in values:
        end = position + len(value.memory)
        header[value.name] = {"dtype": value.kind, "shape": value.shape, "data_offsets": (position, end)}
        position = end
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ThetaError(f"a name that is no text: {error}") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ThetaError(f"a safetensors header of {len(text)} bytes: it has at most {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text


def _check_shared(values: Iterable[_Value]) -> None:
    """Raise ``ThetaError`` if two torch tensors share memory, which a safetensors file cannot say."""
    owned = sorted((value for value in values if value.device and len(value.memory)), key=_place)
    for left, right in pairwise(owned):
        if left.device == right.device and right.address < left.end:
            raise ThetaError(
                f"parameters {left.name!r} and {right.name!r} share memory, which safetensors cannot store: "
                "leave one out, or clone() it"
            )


def _place(value: _Value) -> tuple[str, int, int]:
    return value.device, value.address, value.end


# -- one tensor ------------------------------------------------------------------------------------------------------


def _value(name: object, value: object) -> _Value:
    if not isinstance(name, str) or name == "__metadata__":
        raise ThetaError(f"a parameter cannot be called {name!r}")
    torch: Any = sys.modules.get("torch")  # whoever has a tensor has imported it
    try:
        if torch is not None and isinstance(value, torch.Tensor):
            return _of_torch(name, value, torch)
        return _of_numpy(name, value)
    except (RuntimeError, TypeError, ValueError) as error:  # torch's own, of a tensor without plain memory
        raise ThetaError(f"parameter {name!r}: {' '.join(str(error).split())[:200]}") from None


def _of_torch(name: str, tensor: Any, torch: Any) -> _Value:
    kind = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    if tensor.layout is not torch.strided or not tensor.is_contiguous():
        how = "to_dense()" if tensor.layout is not torch.strided else "contiguous()"
        raise ThetaError(f"parameter {name!r} is not contiguous, as safetensors has it: save its {how}")
    if kind == "float4_e2m1fn_x2":  # two numbers in each element
        shape = (*shape[:-1], 2 * shape[-1])
    plain = tensor.detach().resolve_conj().resolve_neg().cpu()
    memory = plain.reshape(-1).view(torch.uint8).numpy().data
    return _Value(name, _kind(name, kind), shape, memory, str(tensor.device), tensor.data_ptr())


def _of_numpy(name: str, value: object) -> _Value:
    import numpy as np

    if not isinstance(value, (np.ndarray, np.generic)):
        raise ThetaError(f"parameter {name!r} is neither a NumPy array nor a torch tensor but {type(value).__name__}")
    array = np.asarray(value)
    kind = _kind(name, array.dtype.name)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return _Value(name, kind, array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _kind(name: str, kind: str) -> str:
    if kind not in _TYPES:
        raise ThetaError(f"parameter {name!r}: safetensors has no type {kind}")
    return _TYPES[kind]


class _Joined:
    """Pieces of memory, one after the other, as a source."""

    def __init__(self, parts: Iterable[memoryview]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._starts = list(accumulate(map(len, self._parts), initial=0))
        self.size = self._starts[-1]

    def read(self, offset: int, size: int) -> bytes:
        check_range(offset, size, self.size)
        return b"".join(self._slices(offset, offset + size))

    def readinto(self, offset: int, buffer: memoryview) -> None:
        check_range(offset, len(buffer), self.size)
        for piece in self._slices(offset, offset + len(buffer)):
            buffer[: len(piece)] = piece
            buffer = buffer[len(piece) :]

    def _slices(self, start: int, end: int) -> Iterator[memoryview]:
        index = bisect_right(self._starts, start) - 1
        while start < end:
            at = self._starts[index]
            piece = self._parts[index][start - at : end - at]
            yield piece
            start, index = start + len(piece), index + 1

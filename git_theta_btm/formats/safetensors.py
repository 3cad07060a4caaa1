"""safetensors: eight bytes of header length, a JSON header, then the tensors.

Specification: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import FormatError
from ..source import Source
from ..tensor import DTYPES, Tensor
from . import Located

MAX_HEADER = 100_000_000  # the reference implementation's own limit
TYPES = {name: DTYPES[name] for name in (
    "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2",
    "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "I64", "U64", "F64", "C64",
)}  # fmt: skip


def locate(source: Source) -> list[Located]:
    """All tensors of the header, in the header's order. Raises ``FormatError``."""
    length = int.from_bytes(source.read(0, 8), "little")
    if length > MAX_HEADER:
        raise FormatError(f"a safetensors header of {length} bytes")
    header = _parse(source.read(8, length))
    return [_tensor(name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not a safetensors header: {error}") from None
    if not isinstance(header, dict):
        raise FormatError("a safetensors header that is no object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise FormatError("a key stands twice in a safetensors header")
    return values


def _tensor(name: str, entry: Any, start: int) -> Located:
    try:
        name.encode()  # an escaped half of a surrogate pair is JSON, and no text
        dtype, shape, (begin, end) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"a safetensors entry that names no tensor: {name[:100]!r}") from None
    if type(shape) is not list or not all(type(value) is int for value in (*shape, begin, end)):
        raise FormatError(f"sizes of {name[:100]!r} are not integers")
    tensor = Tensor(dtype, tuple(shape))
    if begin < 0 or begin + tensor.nbytes != end:
        raise FormatError(f"the byte range of {name[:100]!r} is not one of {tensor.nbytes} bytes")
    return Located(name, tensor, start + begin)

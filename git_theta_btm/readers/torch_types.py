"""What PyTorch calls its element types, as dtypes and as storage classes, and where a storage's bytes are."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FormatError
from ..tensor import DTYPES, DType
from .symbols import Global, PersistentId, Value

MAX_NUMBER = 1 << 62  # no count or offset that fits in a file is larger

# torch's name: ours. What is missing has no counterpart: its tensors are not located.
_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex32": "C32", "complex64": "C64", "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float4_e2m1fn_x2": "F4",
    "qint8": "QINT8", "quint8": "QUINT8", "qint32": "QINT32", "quint4x2": "QUINT4X2", "quint2x4": "QUINT2X4",
}  # fmt: skip
_STORAGES = {
    "Bool": "BOOL", "Byte": "U8", "Char": "I8", "Short": "I16", "Int": "I32", "Long": "I64", "Half": "F16",
    "BFloat16": "BF16", "Float": "F32", "Double": "F64", "ComplexHalf": "C32", "ComplexFloat": "C64",
    "ComplexDouble": "C128", "QInt8": "QINT8", "QUInt8": "QUINT8", "QInt32": "QINT32", "QUInt4x2": "QUINT4X2",
    "QUInt2x4": "QUINT2X4", "Untyped": "U8", "_Untyped": "U8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Storage:
    """What a persistent id says of a storage: its key, its length, and the part of it that is meant.

    ``size``, ``begin`` and ``end`` are in bytes. ``dtype`` is the type of its elements.
    """

    key: str
    dtype: DType
    size: int
    begin: int
    end: int


def dtype_of(value: Value) -> DType | None:
    """The element type that ``torch.<name>`` stands for; ``None`` if it is no dtype, or one that has no counterpart."""
    if not isinstance(value, Global) or value.module != "torch" or value.name not in _NAMES:
        return None
    return DTYPES[_NAMES[value.name]]


def is_storage(value: Value) -> bool:
    """Whether a symbol refers to a storage: a persistent id of the form ``("storage", type, key, location, numel)``."""
    if not isinstance(value, PersistentId) or not isinstance(value.value, tuple):
        return False
    return len(value.value) in (5, 6) and value.value[0] == "storage"


def storage_of(value: Value) -> Storage | None:
    """The storage that a persistent id refers to; ``None`` if its elements have no counterpart here.

    In files older than PyTorch 1.6 a sixth element narrows it to ``(view key, offset, numel)``, counted in elements.
    Raises ``FormatError``.
    """
    if not isinstance(value, PersistentId) or not isinstance(value.value, tuple) or not is_storage(value):
        raise FormatError("a tensor without a storage")
    _, kind, key, _, numel, *view = value.value
    if not isinstance(kind, Global) or not isinstance(key, str):
        raise FormatError("a storage without a type or a key")
    name = _STORAGES.get(kind.name.removesuffix("Storage")) if kind.module.partition(".")[0] == "torch" else None
    if name is None:
        return None
    dtype, size = DTYPES[name], number(numel)
    begin, count = _view(view[0], size) if view else (0, size)
    return Storage(key, dtype, size * dtype.size, begin * dtype.size, (begin + count) * dtype.size)


def _view(view: Value, numel: int) -> tuple[int, int]:
    if view is None:
        return 0, numel
    if not isinstance(view, tuple) or len(view) != 3:
        raise FormatError("a storage view that is none")
    begin, count = number(view[1]), number(view[2])
    if begin + count > numel:
        raise FormatError("a storage view larger than its storage")
    return begin, count


def number(value: Value) -> int:
    """``value`` if it is a count or an offset. Raises ``FormatError``."""
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise FormatError("a size that is no number of bytes")
    return value


def numbers(value: Value) -> tuple[int, ...]:
    """The elements of a tuple or list of sizes. Raises ``FormatError``."""
    if not isinstance(value, tuple | list):
        raise FormatError("a shape that is no tuple")
    return tuple(map(number, value))

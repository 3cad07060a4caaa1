"""HDF5 datatypes and dataspaces: which element type of ours a datatype message describes, if any.

Specification: HDF5 File Format Specification 3.0, sections IV.A.2.b (dataspace) and IV.A.2.d (datatype).
"""

from __future__ import annotations

from ..errors import FormatError
from ..tensor import DTYPES, DType
from .hdf5_blocks import Fields

_FIXED, _FLOAT, _COMPOUND, _ENUM = 0, 1, 6, 8
_INTEGERS = {(size, signed): DTYPES[f"{'UI'[signed]}{8 * size}"] for size in (1, 2, 4, 8) for signed in (0, 1)}
# (bytes, bits of exponent, bits of mantissa, bias) of IEEE's and OCP's formats: sign first, one implied bit.
_FLOATS = {
    (2, 5, 10, 15): DTYPES["F16"],
    (2, 8, 7, 127): DTYPES["BF16"],
    (4, 8, 23, 127): DTYPES["F32"],
    (8, 11, 52, 1023): DTYPES["F64"],
    (1, 4, 3, 7): DTYPES["F8_E4M3"],
    (1, 5, 2, 15): DTYPES["F8_E5M2"],
}
_COMPLEX = {DTYPES["F16"]: DTYPES["C32"], DTYPES["F32"]: DTYPES["C64"], DTYPES["F64"]: DTYPES["C128"]}
_IMPLIED_BIT = 2  # mantissa normalisation


def element_type(fields: Fields) -> DType | None:
    """The element type that a datatype message describes, ``None`` for one that has no name here.

    Raises ``FormatError`` for a message that ends too early.
    """
    head, flags, size = fields.uint(1), fields.uint(3), fields.uint(4)
    version, kind = head >> 4, head & 15
    if kind == _FIXED:
        return _integer(fields, flags, size)
    if kind == _FLOAT:
        return _float(fields, flags, size)
    if kind == _COMPOUND:
        return _complex(fields, version, flags & 0xFFFF, size)
    if kind == _ENUM:
        return _boolean(fields, version, flags & 0xFFFF)
    return None


def shape(fields: Fields, length_size: int) -> tuple[int, ...] | None:
    """The current shape in a dataspace message, ``None`` for a null dataspace or a version unknown here."""
    version, rank, _ = fields.uint(1), fields.uint(1), fields.uint(1)
    if version not in (1, 2):
        return None
    if fields.take(5 if version == 1 else 1) == b"\2":  # of version 2: scalar, simple, null
        return None
    return tuple(fields.uint(length_size) for _ in range(rank))


def _integer(fields: Fields, flags: int, size: int) -> DType | None:
    big_endian, signed = flags & 1, flags >> 3 & 1
    offset, precision = fields.uint(2), fields.uint(2)
    if big_endian or offset or precision != 8 * size:
        return None
    return _INTEGERS.get((size, signed))


def _float(fields: Fields, flags: int, size: int) -> DType | None:
    offset, precision = fields.uint(2), fields.uint(2)
    exponent_at, exponent, mantissa_at, mantissa = fields.take(4)
    bias = fields.uint(4)
    big_endian, vax, normalisation, sign_at = flags & 1, flags & 0x40, flags >> 4 & 3, flags >> 8 & 0xFF
    bits = (offset, precision, mantissa_at, exponent_at, sign_at)
    if big_endian or vax or normalisation != _IMPLIED_BIT or bits != (0, 8 * size, 0, mantissa, 8 * size - 1):
        return None
    return _FLOATS.get((size, exponent, mantissa, bias))


def _complex(fields: Fields, version: int, members: int, size: int) -> DType | None:
    """Complex numbers as h5py writes them: a compound of ``r`` and ``i``."""
    if members != 2:
        return None
    parts = [_member(fields, version, size) for _ in range(members)]
    part = parts[0][2]
    if part is None or parts != [(b"r", 0, part), (b"i", part.size, part)] or size != 2 * part.size:
        return None
    return _COMPLEX.get(part)


def _member(fields: Fields, version: int, size: int) -> tuple[bytes, int, DType | None]:
    """Name, offset and type of one member. Only numbers are read: a member that is a compound has no name here."""
    name = _name(fields, version)
    offset = fields.uint(4 if version < 3 else (size.bit_length() + 7) // 8)
    if version == 1 and fields.take(28)[0]:  # the member is an array
        return name, offset, None
    if fields.left < 8:
        raise FormatError("an HDF5 compound without members")
    head, flags, width = fields.uint(1), fields.uint(3), fields.uint(4)
    return name, offset, _float(fields, flags, width) if head & 15 == _FLOAT else None


def _boolean(fields: Fields, version: int, members: int) -> DType | None:
    """Booleans as h5py writes them: an enumeration of ``FALSE`` and ``TRUE`` over signed bytes."""
    if members != 2 or fields.left < 8:
        return None
    head, flags, size = fields.uint(1), fields.uint(3), fields.uint(4)
    if head & 15 != _FIXED or _integer(fields, flags, size) != DTYPES["I8"]:
        return None
    names = [_name(fields, version) for _ in range(members)]
    return DTYPES["BOOL"] if (names, fields.take(2)) == ([b"FALSE", b"TRUE"], b"\0\1") else None


def _name(fields: Fields, version: int) -> bytes:
    return fields.string(multiple=8 if version < 3 else 1)

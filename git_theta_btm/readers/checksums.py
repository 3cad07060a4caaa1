"""Where a zip archive keeps the CRC-32 of each stored member, for whoever changes the member's bytes.

Specification: APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3.7, 4.3.9 and 4.3.12.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import FormatError
from ..source import Source
from .archive import _directory, _Entry, members

_CRC_LOCAL, _LENGTHS_LOCAL, _LOCAL = 14, 26, 30  # offsets in a local header, and its size without name and extra field
_CRC_CENTRAL, _LENGTHS_CENTRAL, _CENTRAL = 16, 28, 46  # the same of an entry of the directory
_DESCRIPTOR = 0x0008  # flag: the CRC-32 stands behind the content
_SIGNATURE = b"PK\7\x08"  # of a data descriptor; older writers leave it out


@dataclass(frozen=True, slots=True)
class Checksum:
    """The bytes ``[start, end)`` of a member and the offsets of the four-byte fields that hold their CRC-32."""

    start: int
    end: int
    fields: tuple[int, ...]


def checksums(source: Source) -> list[Checksum]:
    """The checksums of all stored members, in the directory's order. Raises ``FormatError``."""
    members(source)  # raises for an archive that contradicts itself
    at, entries = _directory(source)
    found = []
    for entry in entries:
        if entry.located:
            found.append(_checksum(source, entry, at + _CRC_CENTRAL))
        at += _CENTRAL + sum(struct.unpack("<3H", source.read(at + _LENGTHS_CENTRAL, 6)))
    return found


def _checksum(source: Source, entry: _Entry, central: int) -> Checksum:
    start = entry.header + _LOCAL + sum(struct.unpack("<2H", source.read(entry.header + _LENGTHS_LOCAL, 4)))
    end = start + entry.size
    crc = struct.pack("<L", entry.crc)
    local = entry.header + _CRC_LOCAL
    fields = [central, local] if source.read(local, 4) == crc or not entry.flags & _DESCRIPTOR else [central]
    if entry.flags & _DESCRIPTOR:
        signed = source.read(end, 4) == _SIGNATURE and source.read(end + 4, 4) == crc
        fields.append(end + 4 if signed else end)
    if any(source.read(field, 4) != crc for field in fields):
        raise FormatError(f"a zip member of two checksums: {entry.name[:100]!r}")
    return Checksum(start, end, tuple(fields))

"""Zip archives: where the bytes of each member lie, taken from the central directory and checked member by member.

Specification: APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3 and 4.5.3. The standard library's reader is not used: importing
it takes longer than reading a directory, and it trusts what it reads.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from ..errors import FormatError
from ..source import Source

MAX_DIRECTORY = 1 << 28  # bytes: about two million members

_END = struct.Struct("<4s4H2LH")  # signature, disk, disk of directory, entries here, entries, size, offset, comment
_END64 = struct.Struct("<4sQ2H2L4Q")  # signature, size, versions, disks, entries here, entries, size, offset
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "the value stands in the zip64 record"
_ENCRYPTED, _DESCRIPTOR = 0x2041, 0x0008  # bits of the flags: 0, 6 and 13; 3


@dataclass(frozen=True, slots=True)
class Member:
    """A stored member: its name and the bytes ``[offset, offset + size)`` of the file that are its content."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the central directory says about a member."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int

    @property
    def located(self) -> bool:
        return self.method == 0 and not self.flags & _ENCRYPTED


def members(source: Source) -> dict[str, Member | None]:
    """All members by name in the directory's order; ``None`` for one whose bytes are compressed or encrypted.

    Names are labels: bytes that are not UTF-8 become lone surrogates. Raises ``FormatError`` for an archive that
    contradicts itself: sizes or counts that lie, members that overlap, a name that stands twice.
    """
    start, entries = _directory(source)
    found: dict[str, Member | None] = {}
    extents = [(start, start)]
    for entry in entries:
        name = entry.name.decode("utf-8", "surrogateescape")
        if name in found:
            raise FormatError(f"a zip archive with two members {name[:100]!r}")
        offset = _content(source, entry)
        extents.append((entry.header, offset + entry.packed))
        found[name] = Member(name, offset, entry.size) if entry.located else None
    extents.sort()
    if any(end > begin for (_, end), (begin, _) in pairwise(extents)) or extents[-1][1] > start:
        raise FormatError("members of a zip archive overlap")
    return found


def _directory(source: Source) -> tuple[int, list[_Entry]]:
    """Where the central directory begins, and what stands in it."""
    tail = source.read(source.size - min(source.size, _END.size + _FULL16), min(source.size, _END.size + _FULL16))
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise FormatError("a zip archive without its end")
    _, *disks, here, count, size, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise FormatError("bytes behind the end of a zip archive")
    end = source.size - len(tail) + at
    limits = (_FULL16, _FULL16, _FULL16, _FULL16, _FULL32, _FULL32)
    end, values = _zip64(source, end, list(zip((*disks, here, count, size, offset), limits, strict=True)))
    *disks, here, count, size, offset = values
    if any(disks) or here != count or offset + size != end or size > MAX_DIRECTORY:
        raise FormatError("the end of a zip archive does not describe its directory")
    return offset, _entries(source.read(offset, size), count)


def _zip64(source: Source, end: int, fields: list[tuple[int, int]]) -> tuple[int, list[int]]:
    """Where the directory must end and the fields' values, from the zip64 records in front of ``end`` if there are any.

    ``fields`` are the values of the ordinary record, each with the number that stands for "see zip64".
    """
    values = [value for value, _ in fields]
    if end < _LOCATOR.size + _END64.size:
        return end, values
    signature, disk, start, disks = _LOCATOR.unpack(source.read(end - _LOCATOR.size, _LOCATOR.size))
    if signature != b"PK\6\7":
        return end, values
    if disk or disks > 1 or start > end - _LOCATOR.size - _END64.size:
        raise FormatError("a zip64 locator that points nowhere")
    signature, size, _, _, *values = _END64.unpack(source.read(start, _END64.size))
    if signature != b"PK\6\6" or start + 12 + size != end - _LOCATOR.size:
        raise FormatError("a zip64 record of the wrong size")
    if any(short not in (limit, value) for (short, limit), value in zip(fields, values, strict=True)):
        raise FormatError("the two ends of a zip archive contradict each other")
    return start, values


def _entries(data: bytes, count: int) -> list[_Entry]:
    if count > len(data) // _CENTRAL.size:
        raise FormatError(f"a zip directory of {len(data)} bytes for {count} members")
    entries, at = [], 0
    for _ in range(count):
        entry, at = _entry(data, at)
        entries.append(entry)
    if at != len(data):
        raise FormatError("bytes behind the last entry of a zip directory")
    return entries


def _entry(data: bytes, at: int) -> tuple[_Entry, int]:
    """The directory's entry at ``at``, and where the next one begins."""
    begin = at + _CENTRAL.size
    if begin > len(data):
        raise FormatError("a zip directory that ends early")
    signature, _, _, flags, method, _, _, crc, packed, size, named, extra, comment, disk, _, _, header = (
        _CENTRAL.unpack_from(data, at)
    )
    end = begin + named + extra + comment
    if signature != b"PK\1\2" or disk or end > len(data):
        raise FormatError("not an entry of a zip directory")
    name = data[begin : begin + named]
    if _FULL32 in (packed, size, header):
        size, packed, header = _extra(data[begin + named : begin + named + extra], [size, packed, header])
    entry = _Entry(name, flags, method, crc, packed, size, header)
    if entry.located and packed != size:
        raise FormatError("a stored member of two sizes")
    return entry, end


def _extra(extra: bytes, values: list[int]) -> list[int]:
    """``values`` (size, packed size, offset) with those that are full replaced from the zip64 extra field."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind != 1:
            continue
        full = [index for index, value in enumerate(values) if value == _FULL32]
        if len(field) != size or size < 8 * len(full):
            break
        for index, value in zip(full, struct.unpack_from(f"<{len(full)}Q", field), strict=True):
            values[index] = value
        return values
    raise FormatError("a zip member without its zip64 sizes")


def _content(source: Source, entry: _Entry) -> int:
    """The offset of a member's first byte, from its local header, which must say what the directory says."""
    data = source.read(entry.header, _LOCAL.size + len(entry.name))
    signature, _, flags, method, _, _, crc, packed, size, named, extra = _LOCAL.unpack_from(data)
    if signature != b"PK\3\4" or named != len(entry.name) or data[_LOCAL.size :] != entry.name:
        raise FormatError("a zip directory that points at another member")
    if method != entry.method or flags != entry.flags:
        raise FormatError("a zip member that is packed in two ways")
    if _FULL32 in (packed, size):
        wide = source.read(entry.header + len(data), extra)
        size, packed = _extra(wide, [size, packed])
    given = (crc, packed, size)
    promised = (entry.crc, entry.packed, entry.size)
    absent = 0 if flags & _DESCRIPTOR else None  # the sizes then stand behind the member
    if any(value not in (promise, absent) for value, promise in zip(given, promised, strict=True)):
        raise FormatError("a zip member of two sizes")
    return entry.header + len(data) + int(extra)

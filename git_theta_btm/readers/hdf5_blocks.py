"""HDF5 below its groups and datasets: superblock, metadata blocks, object headers and the messages in them.

Specification: HDF5 File Format Specification 3.0, sections II and IV.A (object headers). Checksums are not verified:
what a damaged file locates wrongly is stored less finely, and still byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import FormatError
from ..source import Source

MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_METADATA = 1 << 28  # bytes; a model of 10^5 datasets has some 10^8
SLACK = 1 << 16  # bytes of names that even a small file may have
MAX_MESSAGES = 1 << 16  # of one object; old headers count them in 16 bits, as new groups do their links

_CONTINUATION = 0x10
_SHARED = 0x02  # flag of a message whose body is a reference to another object


class Fields:
    """The fields of one block, read in order; a field beyond its end raises ``FormatError``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise FormatError("an HDF5 field lies outside its block")
        self._at += size
        return self._data[self._at - size : self._at]

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def string(self, *, multiple: int = 1) -> bytes:
        """Bytes up to a NUL, which is stepped over, as is padding to a multiple of so many bytes."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise FormatError("an HDF5 string without end")
        size = end + 1 - self._at
        return self.take(size + -size % multiple).rstrip(b"\0")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an object header: its type number and its body."""

    kind: int
    body: bytes
    shared: bool


class Blocks:
    """The metadata blocks of one file.

    Blocks of a file never overlap, so their sizes and the lengths of the names that ``charge`` counts stay below twice
    the file's size. Whatever exceeds that is a file made to be read for ever, and raises ``FormatError``.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._budget = min(2 * source.size + SLACK, MAX_METADATA)
        head = Fields(source.read(0, min(128, source.size)))
        if head.take(8) != MAGIC:
            raise FormatError("not an HDF5 file")
        version = head.uint(1)
        if version in (0, 1):
            self._superblock_0(head, version)
        elif version in (2, 3):
            self._superblock_2(head)
        else:
            raise FormatError(f"an HDF5 superblock of version {version}")

    def _superblock_0(self, head: Fields, version: int) -> None:
        head.take(4)
        self._sizes(head)
        head.take(13 if version else 9)  # group and storage parameters, flags
        base, _, _, _ = (self.address(head) for _ in range(4))
        head.take(self.length_size)  # name of the root; the specification calls it an offset, the library a length
        self.root = self._root(base, self.address(head))

    def _superblock_2(self, head: Fields) -> None:
        self._sizes(head)
        head.take(1)
        base, _, _ = (self.address(head) for _ in range(3))
        self.root = self._root(base, self.address(head))

    def _sizes(self, head: Fields) -> None:
        self.offset_size, self.length_size = head.uint(1), head.uint(1)
        if not {self.offset_size, self.length_size} <= {2, 4, 8}:
            raise FormatError(f"HDF5 addresses of {self.offset_size} and lengths of {self.length_size} bytes")

    @staticmethod
    def _root(base: int | None, root: int | None) -> int:
        if base != 0 or root is None:
            raise FormatError("an HDF5 file that does not start with its first byte, or has no root")
        return root

    def address(self, fields: Fields) -> int | None:
        """An address, ``None`` where it is undefined (all bits set)."""
        value = fields.uint(self.offset_size)
        return None if value == (1 << 8 * self.offset_size) - 1 else value

    def charge(self, size: int) -> None:
        """Count ``size`` bytes of work. Raises ``FormatError`` when they are more than the file can ask for."""
        self._budget -= size
        if self._budget < 0:
            raise FormatError("HDF5 metadata that refers to itself")

    def block(self, address: int | None, size: int) -> Fields:
        """The ``size`` bytes at ``address``."""
        return Fields(self.raw(address, size))

    def raw(self, address: int | None, size: int) -> bytes:
        """The ``size`` bytes at ``address``."""
        self.charge(size)
        return self._source.read(-1 if address is None else address, size)

    def messages(self, address: int) -> Iterator[Message]:
        """The messages of the object header at ``address``, those of its continuation blocks included."""
        version_1 = self.raw(address, 4) != b"OHDR"
        chunks = [self._header_1(address) if version_1 else self._header_2(address)]
        count = 0
        for fields, prefix in chunks:  # grows while it is walked
            while fields.left >= prefix:
                count += 1
                if count > MAX_MESSAGES:
                    raise FormatError(f"an HDF5 object header of more than {MAX_MESSAGES} messages")
                message = _message_1(fields) if version_1 else _message_2(fields, prefix)
                if message.kind == _CONTINUATION:
                    chunks.append((self._continuation(message, version_1=version_1), prefix))
                else:
                    yield message

    def _header_1(self, address: int) -> tuple[Fields, int]:
        head = self.block(address, 16)
        if head.take(2)[0] != 1:
            raise FormatError("not an HDF5 object header")
        head.take(6)
        return self.block(address + 16, head.uint(4)), 8

    def _header_2(self, address: int) -> tuple[Fields, int]:
        version, flags = self.raw(address + 4, 2)
        if version != 2:
            raise FormatError(f"an HDF5 object header of version {version}")
        start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = self.block(start, width).uint(width)
        return self.block(start + width, size), 6 if flags & 0x04 else 4

    def _continuation(self, message: Message, *, version_1: bool) -> Fields:
        where = Fields(message.body)
        address, size = self.address(where), where.uint(self.length_size)
        if version_1:
            return self.block(address, size)
        data = self.raw(address, size)
        if data[:4] != b"OCHK" or size < 8:
            raise FormatError("not an HDF5 continuation block")
        return Fields(data[4:-4])  # a checksum ends it


def _message_1(fields: Fields) -> Message:
    kind, size, flags = fields.uint(2), fields.uint(2), fields.uint(1)
    fields.take(3)
    return Message(kind, fields.take(size), bool(flags & _SHARED))


def _message_2(fields: Fields, prefix: int) -> Message:
    kind, size, flags = fields.uint(1), fields.uint(2), fields.uint(1)
    fields.take(prefix - 4)  # order of creation
    return Message(kind, fields.take(size), bool(flags & _SHARED))

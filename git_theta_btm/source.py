"""Random access to the bytes of one file, wherever they are; reads never map memory, so a shrinking file is an error
that can be reported and not a signal that kills the process."""

from __future__ import annotations

import os
from typing import Protocol, TypeAlias

from .errors import FormatError

Data: TypeAlias = bytes | memoryview

BLOCK = 1 << 20  # bytes read at a time: fits the second-level cache, so each block is hashed where it was read


class Source(Protocol):
    """Bytes with a length. ``read`` returns exactly ``size`` bytes or raises ``FormatError``."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; ``FormatError`` if they are not all there."""

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``; ``FormatError`` if it cannot be filled."""


class BytesSource:
    """A source over bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).toreadonly()
        self.size = len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.view(offset, size))

    def view(self, offset: int, size: int) -> memoryview:
        check_range(offset, size, self.size)
        return self._data[offset : offset + size]

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.view(offset, len(buffer))


class FileSource:
    """A source over an open file descriptor (which it does not own), safe to read from many threads at once."""

    def __init__(self, fd: int, size: int | None = None) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size if size is None else size

    def read(self, offset: int, size: int) -> bytes:
        check_range(offset, size, self.size)
        data = os.pread(self.fd, size, offset)
        if len(data) == size:
            return data
        buffer = bytearray(size)  # Linux hands out at most 2 GiB - 4096 bytes a call
        self.readinto(offset, memoryview(buffer))
        return bytes(buffer)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        check_range(offset, len(buffer), self.size)
        while buffer:
            count = os.preadv(self.fd, [buffer], offset)
            if not count:
                raise FormatError(f"the file ended at byte {offset}: it changed while it was read")
            buffer, offset = buffer[count:], offset + count


class Part:
    """``size`` bytes of another source from ``start``. Raises ``FormatError`` if it has not so many."""

    def __init__(self, source: Source, start: int, size: int) -> None:
        check_range(start, size, source.size)
        self._source, self._start, self.size = source, start, size

    def read(self, offset: int, size: int) -> bytes:
        check_range(offset, size, self.size)
        return self._source.read(self._start + offset, size)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        check_range(offset, len(buffer), self.size)
        self._source.readinto(self._start + offset, buffer)


def view(source: Source, offset: int, size: int) -> Data:
    """What ``read`` returns, without a copy where the source has it in memory: whoever has it must not change it."""
    data: Data = getattr(source, "view", source.read)(offset, size)
    return data


def check_range(offset: int, size: int, limit: int) -> None:
    """Raise ``FormatError`` unless ``[offset, offset + size)`` lies within ``limit`` bytes."""
    if offset < 0 or size < 0 or offset + size > limit:
        raise FormatError(f"bytes {offset}..{offset + size} of a file of {limit}")


def write_all(out: int, data: Data) -> int:
    """Write every byte, however many calls it takes; returns their number."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(out, rest) :]
    return len(data)

"""A cursor over part of a source that holds one block of it in memory."""

from __future__ import annotations

from ..errors import FormatError
from ..source import BLOCK, Source

SLACK = 16  # bytes that may be read at the cursor without asking; past the end they are zeros


class Window:
    """The bytes ``[start, end)`` of a source, read block by block as the cursor moves on.

    ``data[pos]`` is the byte at the cursor, and at least ``SLACK`` bytes are there to read, while ``pos <= safe``. A
    reader that went past the end through the zeros is found out by the next ``refill``, ``take`` or ``skip``.
    """

    __slots__ = ("base", "data", "end", "pos", "safe", "source")

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.base = start
        self.end = end
        self.data = b""
        self.pos = 0
        self.safe = -1

    @property
    def offset(self) -> int:
        """The cursor's place in the source."""
        return self.base + self.pos

    def refill(self, need: int = SLACK) -> None:
        """Let the window begin at the cursor and hold ``need`` bytes. Raises ``FormatError`` behind the end."""
        self.base += self.pos
        self.pos = 0
        left = self.end - self.base
        if left < 0:
            raise FormatError(f"the data ends at byte {self.end}, {-left} bytes too early")
        size = min(left, max(BLOCK, need))
        self.data = self.source.read(self.base, size)
        if size == left:
            self.data += bytes(SLACK)
        self.safe = len(self.data) - SLACK

    def number(self, size: int, *, signed: bool = False) -> int:
        """The little-endian integer of at most 8 bytes at the cursor."""
        begin, self.pos = self.pos, self.pos + size
        return int.from_bytes(self.data[begin : self.pos], "little", signed=signed)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes. Raises ``FormatError``."""
        if self.pos + size > len(self.data):
            self.check(size)
            self.refill(size)
        begin, self.pos = self.pos, self.pos + size
        return self.data[begin : self.pos]

    def skip(self, size: int) -> None:
        """Move the cursor over ``size`` bytes without reading them. Raises ``FormatError``."""
        self.check(size)
        self.pos += size

    def check(self, size: int) -> None:
        """Raise ``FormatError`` unless ``size`` bytes are left."""
        if self.offset + size > self.end:
            raise FormatError(f"{size} bytes promised at byte {self.offset}, but the data ends at {self.end}")

    def line(self) -> bytes:
        """The bytes up to the next line feed, which is passed over. Raises ``FormatError`` if it is over 1 MiB away."""
        at = self.data.find(b"\n", self.pos)
        if at < 0:
            self.refill()
            at = self.data.find(b"\n")
            if at < 0:
                raise FormatError(f"a line that does not end at byte {self.base}")
        begin, self.pos = self.pos, at + 1
        return self.data[begin:at]

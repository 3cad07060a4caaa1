"""The machine that a pickle is a program for, with symbols on its stack."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import FormatError
from ..source import BLOCK, Source
from .symbols import Bulk, PersistentId, Value
from .window import Window

MAX_INT = 1024  # bytes or digits; no number of a checkpoint is longer, and decimal conversion takes quadratic time


class Machine(Window):
    """The state of a walk: stack, marks, memo, and the persistent ids met so far."""

    __slots__ = ("marks", "memo", "persistent", "stack")

    stack: list[Value]
    marks: list[list[Value]]
    memo: dict[int, Value]
    persistent: list[PersistentId]

    def __init__(self, source: Source, start: int, end: int) -> None:
        super().__init__(source, start, end)
        self.stack, self.marks, self.memo, self.persistent = [], [], {}, []

    def since_mark(self) -> list[Value]:
        """The values above the last mark, which are taken off the stack together with it."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def decimal(self) -> int:
        """The integer on the line at the cursor; Python 2 wrote an ``L`` behind long ones."""
        digits = self.line().removesuffix(b"L")
        if len(digits) > MAX_INT:
            raise FormatError(f"an integer of {len(digits)} digits")
        return int(digits)

    def text(self, size: int) -> str | Bulk:
        """The UTF-8 text of ``size`` bytes at the cursor."""
        data = self.string(size)
        return data if isinstance(data, Bulk) else data.decode("utf-8", "surrogatepass")

    def string(self, size: int) -> bytes | Bulk:
        """The ``size`` bytes at the cursor, or where they stand if they are over 1 MiB."""
        if size <= BLOCK:
            return self.take(size)
        bulk = Bulk(self.offset, size)
        self.skip(size)
        return bulk


Handler = Callable[[Machine], None]

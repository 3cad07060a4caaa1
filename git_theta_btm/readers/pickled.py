"""What a pickle contains, without unpickling it: its opcodes are walked, nothing they name is imported or called.

Specification: CPython, Lib/pickletools.py, protocols 0 to 5. The standard library's ``pickletools`` is not used: it
takes 9 ms to import and does not know what the opcodes do to the stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat

from ..errors import FormatError
from ..source import Source
from .machine import Machine
from .opcodes import HANDLERS, STOP
from .symbols import PersistentId, Value

MAX_OPCODES = 6_000_000  # 190,000 tensors; the symbols of as many opcodes take half a GiB


@dataclass(frozen=True, slots=True, eq=False)
class Pickle:
    """The value of a pickle in symbols, the bytes ``[start, end)`` it took, and its persistent ids in the order met."""

    value: Value
    start: int
    end: int
    persistent: list[PersistentId]


def walk(source: Source, start: int = 0, end: int | None = None) -> Pickle:
    """The pickle that begins at ``start`` and is over before ``end`` (the end of the source if left out).

    Time and memory are bounded by the pickle's length. Raises ``FormatError`` for whatever is not a pickle.
    """
    machine = Machine(source, start, source.size if end is None else end)
    try:
        _run(machine)
        (value,) = machine.stack
    except (LookupError, ValueError) as error:
        raise FormatError(f"not a pickle at byte {machine.offset}: {error}"[:200]) from None
    return Pickle(value, start, machine.offset, machine.persistent)


def _run(machine: Machine) -> None:
    handlers = HANDLERS
    for _ in repeat(None, MAX_OPCODES):
        if machine.pos > machine.safe:
            machine.refill()
        code = machine.data[machine.pos]
        machine.pos += 1
        if code == STOP:
            return
        handlers[code](machine)
    raise FormatError(f"a pickle of more than {MAX_OPCODES} opcodes")

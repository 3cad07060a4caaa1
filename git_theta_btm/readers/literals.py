"""The opcodes of a pickle that push a value which they spell out themselves."""

from __future__ import annotations

import struct

from ..errors import FormatError
from .machine import MAX_INT, Handler, Machine
from .symbols import Bulk, Value


def _constant(value: Value) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(value)

    return push


def _integer(size: int, *, signed: bool = False) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(m.number(size, signed=signed))

    return push


def _long(width: int) -> Handler:
    def push(m: Machine) -> None:
        size = m.number(width)
        if size > MAX_INT:
            raise FormatError(f"an integer of {size} bytes")
        m.stack.append(int.from_bytes(m.take(size), "little", signed=True))

    return push


def _text(width: int) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(m.text(m.number(width)))

    return push


def _bytes(width: int) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(m.string(m.number(width)))

    return push


def _python2_string(width: int) -> Handler:
    def push(m: Machine) -> None:
        data = m.string(m.number(width))
        m.stack.append(data if isinstance(data, Bulk) else data.decode("utf-8", "surrogateescape"))

    return push


def _quoted(m: Machine) -> None:
    text = m.line().decode("utf-8", "surrogateescape").strip()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise FormatError("a string without its quotes")
    m.stack.append(text[1:-1])  # escapes stay as they are: different strings remain different


def _unicode_line(m: Machine) -> None:
    m.stack.append(m.line().decode("raw-unicode-escape"))


def _int_line(m: Machine) -> None:
    flag = {b"00\n": False, b"01\n": True}.get(m.data[m.pos : m.pos + 3])  # how protocols 0 and 1 write booleans
    value = m.decimal()
    m.stack.append(value if flag is None else flag)


def _long_line(m: Machine) -> None:
    m.stack.append(m.decimal())


def _float_line(m: Machine) -> None:
    m.stack.append(float(m.line()))


def _float(m: Machine) -> None:
    m.stack.extend(struct.unpack(">d", m.take(8)))


LITERALS: dict[str, Handler] = {
    "N": _constant(None), "\x88": _constant(value=True), "\x89": _constant(value=False), ")": _constant(()),
    "I": _int_line, "J": _integer(4, signed=True), "K": _integer(1), "M": _integer(2),
    "L": _long_line, "\x8a": _long(1), "\x8b": _long(4), "F": _float_line, "G": _float,
    "S": _quoted, "T": _python2_string(4), "U": _python2_string(1),
    "V": _unicode_line, "\x8c": _text(1), "X": _text(4), "\x8d": _text(8),
    "C": _bytes(1), "B": _bytes(4), "\x8e": _bytes(8), "\x96": _bytes(8),
}  # fmt: skip

"""The opcodes of pickle protocols 0 to 5, each with what it does to a stack of symbols.

Specification: CPython, Lib/pickletools.py. What is not in the table is refused: the extension registry (EXT1, EXT2,
EXT4) and buffers outside the pickle (NEXT_BUFFER, READONLY_BUFFER). Handlers raise ``LookupError`` where the stack or
the memo lacks what they need and ``ValueError`` for text that does not decode; the caller turns both into
``FormatError``.
"""

from __future__ import annotations

from ..errors import FormatError
from .literals import LITERALS
from .machine import Handler, Machine
from .symbols import Call, Global, Pairs, PersistentId, Value


def _proto(m: Machine) -> None:
    if m.number(1) > 5:
        raise FormatError("a pickle of a later protocol")


def _frame(m: Machine) -> None:
    m.check(m.number(8))


def _mark(m: Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.since_mark()


def _pop_mark(m: Machine) -> None:
    m.since_mark()


def _dup(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _get(m: Machine) -> None:
    m.stack.append(m.memo[m.decimal()])


def _bin_get(m: Machine) -> None:
    m.stack.append(m.memo[m.data[m.pos]])
    m.pos += 1


def _long_bin_get(m: Machine) -> None:
    m.stack.append(m.memo[m.number(4)])


def _put(m: Machine) -> None:
    m.memo[m.decimal()] = m.stack[-1]


def _bin_put(m: Machine) -> None:
    m.memo[m.data[m.pos]] = m.stack[-1]
    m.pos += 1


def _long_bin_put(m: Machine) -> None:
    m.memo[int.from_bytes(m.data[m.pos : m.pos + 4], "little")] = m.stack[-1]
    m.pos += 4


def _memoize(m: Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _empty_list(m: Machine) -> None:
    m.stack.append([])


def _empty_dict(m: Machine) -> None:
    m.stack.append(Pairs())


def _list(m: Machine) -> None:
    values = m.since_mark()
    m.stack.append(values)


def _tuple(m: Machine) -> None:
    values = m.since_mark()
    m.stack.append(tuple(values))


def _dict(m: Machine) -> None:
    values = m.since_mark()
    m.stack.append(_pairs(values))


def _short_tuple(size: int) -> Handler:
    def push(m: Machine) -> None:
        if len(m.stack) < size:
            raise FormatError("a tuple of more values than there are")
        m.stack[-size:] = [tuple(m.stack[-size:])]

    return push


def _append(m: Machine) -> None:
    value = m.stack.pop()
    _items(m.stack[-1]).append(value)


def _appends(m: Machine) -> None:
    values = m.since_mark()
    _items(m.stack[-1]).extend(values)


def _items(target: Value) -> list[Value]:
    """The list that the opcodes for appending write to."""
    if type(target) is list:
        return target
    if not isinstance(target, Call):
        raise FormatError("an item of something that holds none")
    if target.items is None:
        target.items = []
    return target.items


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _mapping(m.stack[-1]).extend((key, value))


def _set_items(m: Machine) -> None:
    values = m.since_mark()
    _mapping(m.stack[-1]).extend(_pairs(values))


def _mapping(target: Value) -> Pairs:
    """The dictionary that the opcodes for setting items write to."""
    if isinstance(target, Pairs):
        return target
    if not isinstance(target, Call):
        raise FormatError("a key of something that has none")
    if target.pairs is None:
        target.pairs = Pairs()
    return target.pairs


def _pairs(values: list[Value]) -> Pairs:
    if len(values) % 2:
        raise FormatError("a key without its value")
    return Pairs(values)


def _global(m: Machine) -> None:
    m.stack.append(_global_lines(m))


def _global_lines(m: Machine) -> Global:
    module, name = m.line(), m.line()
    return Global(module.decode(), name.decode())


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise FormatError("a global whose name is no text")
    m.stack.append(Global(module, name))


def _arguments(value: Value) -> tuple[Value, ...]:
    if not isinstance(value, tuple):
        raise FormatError("a call whose arguments are no tuple")
    return value


def _reduce(m: Machine) -> None:
    args = _arguments(m.stack.pop())
    m.stack.append(Call(m.stack.pop(), args))


def _new_with_keywords(m: Machine) -> None:
    kwargs, args = m.stack.pop(), _arguments(m.stack.pop())
    if not isinstance(kwargs, Pairs):
        raise FormatError("keyword arguments that are no dictionary")
    m.stack.append(Call(m.stack.pop(), args, kwargs))


def _object(m: Machine) -> None:
    function, *args = m.since_mark()
    m.stack.append(Call(function, tuple(args)))


def _instance(m: Machine) -> None:
    function = _global_lines(m)
    args = tuple(m.since_mark())
    m.stack.append(Call(function, args))


def _build(m: Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if not isinstance(target, Call) or target.state is not None:
        raise FormatError("a state of something that has none")
    target.state = state


def _persistent(m: Machine, value: Value) -> None:
    reference = PersistentId(value)
    m.persistent.append(reference)
    m.stack.append(reference)


def _persistent_line(m: Machine) -> None:
    _persistent(m, m.line().decode())


def _persistent_value(m: Machine) -> None:
    _persistent(m, m.stack.pop())


STOP = ord(".")
_STACK: dict[str, Handler] = {
    "\x80": _proto, "\x95": _frame, "(": _mark, "0": _pop, "1": _pop_mark, "2": _dup,
    "g": _get, "h": _bin_get, "j": _long_bin_get, "p": _put, "q": _bin_put, "r": _long_bin_put, "\x94": _memoize,
    "]": _empty_list, "l": _list, "a": _append, "e": _appends, "\x8f": _empty_list, "\x90": _appends, "\x91": _tuple,
    "t": _tuple, "\x85": _short_tuple(1), "\x86": _short_tuple(2), "\x87": _short_tuple(3),
    "}": _empty_dict, "d": _dict, "s": _set_item, "u": _set_items,
    "c": _global, "\x93": _stack_global, "R": _reduce, "\x81": _reduce, "\x92": _new_with_keywords,
    "o": _object, "i": _instance, "b": _build, "P": _persistent_line, "Q": _persistent_value,
}  # fmt: skip
HANDLERS: dict[int, Handler] = {ord(code): handler for code, handler in {**LITERALS, **_STACK}.items()}

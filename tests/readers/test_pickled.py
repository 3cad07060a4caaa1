"""Pickles are read as the standard library's ``pickletools`` reads them, and never cost more than their length."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import date
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import FormatError
from git_theta_btm.readers.opcodes import HANDLERS, STOP
from git_theta_btm.readers.pickled import walk
from git_theta_btm.readers.symbols import Bulk, Call, Global, Pairs, PersistentId
from git_theta_btm.source import BytesSource

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}


def read(data: bytes) -> object:
    return walk(BytesSource(data)).value


def refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read(data)


def plain(symbol: object) -> object:
    """Symbols back to the values they stand for, as far as those are containers and scalars."""
    if isinstance(symbol, Pairs):
        return {plain(key): plain(value) for key, value in zip(symbol[::2], symbol[1::2], strict=True)}
    if isinstance(symbol, list | tuple):
        return type(symbol)(map(plain, symbol))
    if isinstance(symbol, Call) and symbol.function in (Global("_codecs", "encode"), Global("__builtin__", "bytes")):
        return str(symbol.args[0]).encode("latin-1") if symbol.args else b""  # bytes, as protocols 0 to 2 write them
    return symbol


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.binary(), inner)
    ),
)


@given(values, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value: object, protocol: int) -> None:
    assert plain(read(pickle.dumps(value, protocol))) == value


def test_every_opcode_is_either_read_or_refused() -> None:
    known = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    assert set(known) - set(HANDLERS) - {STOP} == {code for code, name in known.items() if name in REFUSED}
    assert set(HANDLERS) < set(known)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_opcodes_that_reach_outside_the_pickle(name: str) -> None:
    (code,) = (opcode.code for opcode in pickletools.opcodes if opcode.name == name)
    refused(code.encode("latin-1") + b"\1\0\0\0.")


@given(values, values, st.sampled_from(PROTOCOLS))
def test_a_pickle_ends_where_pickletools_says(first: object, second: object, protocol: int) -> None:
    data = pickle.dumps(first, protocol) + pickle.dumps(second, protocol)
    stream = io.BytesIO(data)
    for _ in pickletools.genops(stream):
        pass
    end = walk(BytesSource(data)).end
    assert end == stream.tell()
    assert walk(BytesSource(data), end).end == len(data)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Frozen:
    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        return (1,), {"y": 2}

    def __new__(cls, *args: int, **kwargs: int) -> Frozen:
        return super().__new__(cls)


def test_objects_are_calls_that_nobody_makes() -> None:
    point = read(pickle.dumps(Point(3), 4))
    assert isinstance(point, Call)
    assert (point.function, point.args, plain(point.state)) == (Global(__name__, "Point"), (), {"x": 3})
    frozen = read(pickle.dumps(Frozen(), 4))
    assert isinstance(frozen, Call)
    assert (frozen.args, plain(frozen.kwargs)) == ((1,), {"y": 2})
    items = read(pickle.dumps(deque([1, 2]), 4))
    assert isinstance(items, Call)
    assert items.items == [1, 2]
    keys = read(pickle.dumps(OrderedDict(a=1), 2))
    assert isinstance(keys, Call)
    assert plain(keys.pairs) == {"a": 1}


def test_objects_of_the_oldest_protocols() -> None:
    instance = read(b"(I1\nimodule\nname\n.")
    assert isinstance(instance, Call)
    assert (instance.function, instance.args) == (Global("module", "name"), (1,))
    made = read(b"(cmodule\nname\nI01\nL5L\nS'it''s'\nV\\u00e9\nF1.5\no.")
    assert isinstance(made, Call)
    assert made.args == (True, 5, "it''s", "é", 1.5)


class Linked(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return ("date", value.isoformat()) if isinstance(value, date) else None


def test_persistent_ids_are_listed_in_order() -> None:
    file = io.BytesIO()
    Linked(file, 2).dump([date(2024, 1, 1), date(2024, 1, 2)])
    found = walk(BytesSource(file.getvalue()))
    assert [reference.value for reference in found.persistent] == [("date", "2024-01-01"), ("date", "2024-01-02")]
    assert found.value == found.persistent
    line = read(b"Pname\n.")
    assert isinstance(line, PersistentId)
    assert line.value == "name"


def test_strings_over_a_block_are_located_and_not_kept() -> None:
    data = pickle.dumps([b"x" * (3 << 20), "y" * (2 << 20), 7], 4)
    found = read(data)
    assert isinstance(found, list)
    assert found == [Bulk(data.index(b"xxx"), 3 << 20), Bulk(data.index(b"yyy"), 2 << 20), 7]


def test_values_that_cross_the_blocks_of_a_large_pickle() -> None:
    value = [str(index) * (index % 50) for index in range(60_000)] + [b"z" * 700_000] + ["w" * 800_000]
    for protocol in (0, 2, 4):
        data = pickle.dumps(value, protocol)
        assert len(data) > 1 << 21
        assert plain(read(data)) == value


def test_containers_that_contain_themselves() -> None:
    value: list[object] = []
    value.append({"me": value})
    found = read(pickle.dumps(value))
    assert isinstance(found, list)
    assert isinstance(found[0], Pairs)
    assert found[0][1] is found


MALFORMED = {
    "empty": b"",
    "no stop": b"N",
    "nothing left": b".",
    "two values left": b"NN.",
    "unknown opcode": b"\xff.",
    "later protocol": b"\x80\x06N.",
    "memo without entry": b"h\1.",
    "put without value": b"q\1.",
    "dup without value": b"2.",
    "mark without end": b"t.",
    "key without value": b"}(Nu.",
    "pop below a mark": b"N(\x85.",
    "append to a tuple": b")Na.",
    "append to a global": b"cos\nsystem\nNa.",
    "key of a list": b"]NNs.",
    "state of a list": b"]Nb.",
    "state of a global": b"cos\nsystem\n}b.",
    "two states": b"cos\nsystem\n)R}b}b.",
    "call of no arguments": b"cos\nsystem\nNR.",
    "call of nothing": b")R.",
    "object of nothing": b"(o.",
    "keywords that are none": b"cos\nsystem\n)]\x92.",
    "global of numbers": b"K\1K\2\x93.",
    "global of bad text": b"c\xff\n\xfe\n.",
    "bad text": b"X\1\0\0\0\xff.",
    "bad float": b"Fone\n.",
    "bad integer": b"Ione\n.",
    "unquoted": b"Sone\n.",
    "line without end": b"I12",
    "short number": b"J\1",
    "short text": b"X\5\0\0\0ab.",
    "huge text": b"\x8d" + b"\xff" * 8 + b".",
    "huge bytes": b"\x8e" + struct.pack("<Q", 1 << 40) + b".",
    "huge negative python 2 string": b"T\xff\xff\xff\xff.",
    "huge long": b"\x8b\xff\xff\xff\x7f.",
    "long of 2 KiB": b"\x8b\0\x08\0\0" + b"\1" * 2048 + b".",
    "decimal of 2 KiB": b"I" + b"1" * 2048 + b"\n.",
    "huge frame": b"\x80\4\x95" + struct.pack("<Q", 1 << 60) + b"N.",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pickles(name: str) -> None:
    refused(MALFORMED[name])


BOMBS: dict[str, Callable[[int], bytes]] = {
    "nested lists": lambda n: b"]" * n + b"a" * (n - 1) + b".",
    "nested tuples": lambda n: b")" + b"\x85" * n + b".",
    "nested marks": lambda n: b"(" * n + b"t" * n + b".",
    "doubled tuples": lambda n: b")" + b"2\x86" * n + b".",
    "doubled keys": lambda n: b")" + b"2\x86" * (n // 2) + b"q\x000" + b"}" + b"h\0Ns" * (n // 4) + b".",
    "nested states": lambda n: b"cos\nsystem\nq\0" + b")R" + b"h\0)R" * n + b"b" * n + b".",
    "memoised": lambda n: b"N" + b"\x94" * n + b".",
    "lines": lambda n: b"]" + b"I1\na" * n + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_deep_and_doubled_values_take_linear_time(name: str) -> None:
    data = BOMBS[name](200_000)
    begin = time.process_time()
    read(data)
    assert time.process_time() - begin < 5  # measured: 0.05 to 0.3 s


def test_more_opcodes_than_any_checkpoint_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("git_theta_btm.readers.pickled.MAX_OPCODES", 1000)
    read(b"N0" * 499 + b"N.")
    refused(b"N0" * 500 + b"N.")


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    try:
        found = walk(BytesSource(data))
    except FormatError:
        return
    assert 0 < found.end <= len(data)


@settings(max_examples=200)
@given(values, st.sampled_from(PROTOCOLS), st.randoms(use_true_random=False))
def test_pickles_with_some_bytes_changed(value: object, protocol: int, random: Random) -> None:
    data = bytearray(pickle.dumps([value, Point(1), OrderedDict(a=1)], protocol))
    for _ in range(random.randint(1, 4)):
        data[random.randrange(len(data))] = random.choice([random.randrange(256), *HANDLERS])
    try:
        found = walk(BytesSource(data))
    except FormatError:
        return
    assert 0 < found.end <= len(data)

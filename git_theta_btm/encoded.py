"""Encoded objects: a header, the residuals of a tensor's chunks, and a table of their lengths at the end.

Chunks are independent: they are encoded and decoded in parallel, in bounded memory, and a slice of a tensor is read
without the rest. ``docs/format.md`` is the specification.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from threading import local
from typing import Any

import numpy as np

from .errors import CorruptObject, FormatError
from .planes import TYPES, Values
from .residual import decode, encode
from .source import Source, check_range, view
from .updates import Span, Update, load

CHUNK = 4 << 20  # bytes of a tensor that are encoded together
_MAGIC = b"git-theta-btm object 1\n"
_MAX_HEADER = 16 << 10
_LEAST_CHUNK = 4 << 10  # bytes: smaller chunks would make a table, and a reader's work, out of proportion
_NONSENSE = (FormatError, ValueError, TypeError, LookupError, ArithmeticError)  # what wrong parameters lead to


@dataclass(frozen=True, slots=True)
class Header:
    """What an object says of itself: how it was made, from tensors of how many bytes an element, and its size raw."""

    kind: str
    width: int
    size: int
    parameters: Mapping[str, Any]
    group: int | None = None
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        fields = (self.width, self.size, self.chunk, self.group if self.group is not None else 0)
        valid = all(type(value) is int and value >= 0 for value in fields) and type(self.kind) is str
        if not valid or self.width not in TYPES or self.size % self.width:
            raise CorruptObject("an encoded object of an impossible kind or size")
        if not 0 < self.chunk <= 64 << 20 or self.chunk % 8:
            raise CorruptObject("an encoded object of impossible chunks")
        if not isinstance(self.parameters, dict) or (self.group or 0) >= 8 * self.width:
            raise CorruptObject("an encoded object with impossible parameters")

    def dumps(self) -> bytes:
        """The canonical text. Raises ``CorruptObject`` if it is longer than a reader would accept."""
        fields = {"chunk": self.chunk, "group": self.group, "kind": self.kind, "parameters": self.parameters}
        text = json.dumps({**fields, "size": self.size, "width": self.width}, sort_keys=True, separators=(",", ":"))
        if len(_MAGIC) + len(text) >= _MAX_HEADER:
            raise CorruptObject(f"an encoded object with a header of {len(text)} bytes")
        return _MAGIC + text.encode() + b"\n"

    def spans(self) -> Iterator[Span]:
        """The chunks, in order."""
        for offset in range(0, self.size, self.chunk):
            yield Span(offset, min(self.chunk, self.size - offset), self.width)


def encode_span(raw: bytes | memoryview, span: Span, header: Header, bases: Sequence[Source]) -> bytes:
    """The payload of one chunk of a tensor. Raises ``ObjectError`` if the bases or parameters do not fit."""
    check_bases(header, bases)
    predicted = _predict(load(header.kind), span, bases, header)
    return encode(np.frombuffer(raw, TYPES[span.width]), predicted, header.group)


def check_bases(header: Header, bases: Sequence[Source]) -> None:
    """Raise ``CorruptObject`` if a base is larger than the tensor: reading one must not cost more than reading both."""
    largest = max((base.size for base in bases), default=0)
    if largest > max(header.size, CHUNK):
        raise CorruptObject(f"a {header.kind[:40]} object of {header.size} bytes with a base of {largest}")


def _predict(update: Update, span: Span, bases: Sequence[Source], header: Header) -> Values | None:
    try:
        predicted = update.predict(span, bases, header.parameters)
    except _NONSENSE as error:
        raise CorruptObject(f"a {header.kind[:40]} object whose bases do not fit: {error}"[:200]) from None
    if predicted is not None and (predicted.dtype, predicted.shape) != (TYPES[span.width], (span.count,)):
        raise CorruptObject(f"a {header.kind[:40]} object of another type than its bases")
    return predicted


def table(lengths: Sequence[int]) -> bytes:
    """What follows the payloads."""
    return struct.pack(f"<{len(lengths)}I", *lengths)


class Decoded:
    """An encoded object as a source of the tensor's bytes. Safe to read from many threads."""

    def __init__(self, source: Source, bases: Sequence[Source]) -> None:
        self._source, self._bases = source, bases
        self.header, start = _header(source)
        self.size = self.header.size
        self._update = load(self.header.kind)
        check_bases(self.header, bases)
        self._edges = _edges(source, self.header, start)
        self._last: local | None = None

    def share(self) -> None:
        """Let each thread keep what it read last, since several others are about to read the same."""
        self._last = self._last or local()

    def _chunk(self, index: int) -> memoryview:
        header = self.header
        offset = index * header.chunk
        span = Span(offset, min(header.chunk, header.size - offset), header.width)
        payload = view(self._source, self._edges[index], self._edges[index + 1] - self._edges[index])
        predicted = _predict(self._update, span, self._bases, header)
        values = decode(payload, predicted, header.group, (span.width, span.count))
        return values.data.cast("B").toreadonly()

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.view(offset, size))

    def view(self, offset: int, size: int) -> memoryview:
        """The same without a copy, where it is in one chunk."""
        check_range(offset, size, self.size)
        if self._last is None:
            return self._view(offset, size)
        where, data = getattr(self._last, "view", (None, memoryview(b"")))
        if where != (offset, size):
            data = self._view(offset, size)
            self._last.view = (offset, size), data
        return data

    def _view(self, offset: int, size: int) -> memoryview:
        first, last = offset // self.header.chunk, -(-(offset + size) // self.header.chunk)
        chunks = [self._chunk(index) for index in range(first, last)]
        data = chunks[0] if len(chunks) == 1 else memoryview(b"".join(chunks))
        skip = offset - first * self.header.chunk
        return data[skip : skip + size]

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.view(offset, len(buffer))


def _header(source: Source) -> tuple[Header, int]:
    head = source.read(0, min(source.size, _MAX_HEADER))
    text, newline, _ = head.removeprefix(_MAGIC).partition(b"\n")
    try:
        fields = json.loads(text)
        header = Header(**fields)
        canonical = header.dumps()
    except (ValueError, TypeError, RecursionError):
        raise CorruptObject("not an encoded object of version 1") from None
    start = len(_MAGIC) + len(text) + 1
    if not newline or not head.startswith(_MAGIC) or canonical != head[:start]:
        raise CorruptObject("an encoded object whose header is not in canonical form")
    return header, start


def _edges(source: Source, header: Header, start: int) -> list[int]:
    """Where each payload begins, and where the last one ends."""
    count = -(-header.size // header.chunk)
    end = source.size - 4 * count
    if end < start or (header.chunk < _LEAST_CHUNK and count > 1):
        raise CorruptObject("an encoded object that is cut short, or cut too small")
    lengths = struct.unpack(f"<{count}I", source.read(end, 4 * count))
    edges = list(accumulate(lengths, initial=start))
    if edges[-1] != end or max(lengths, default=0) > 2 * header.chunk + 256:
        raise CorruptObject("an encoded object whose chunks do not fit its table")
    return edges

"""Documents as they are committed: one JSON object a line, ``{"text": ...}``, and nothing else in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ...errors import ThetaError
from ...source import Source

FIELD = "text"
_STEP = 16 << 20  # bytes read at a time: a stored chunk has at most so many, and each read decodes a chunk anew


class BadDocument(ThetaError):
    """A line or a file that holds no document."""


def lines(source: Source) -> Iterator[bytes]:
    """The lines of a source, without their ends; one at a time, however many there are."""
    starts = range(0, source.size, _STEP)
    return split(source.read(start, min(_STEP, source.size - start)) for start in starts)


def split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in a sequence of bytes that comes in pieces, without their ends; the last one need not have one."""
    rest: list[bytes] = []
    for piece in pieces:
        head, *others = piece.split(b"\n")
        rest.append(head)
        for line in others:
            yield b"".join(rest)
            rest = [line]
    if any(rest):
        yield b"".join(rest)


def load(line: bytes) -> Any:
    """The JSON value in a line. Raises ``BadDocument``, in a few words."""
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        raise BadDocument("it is not UTF-8") from None
    except (ValueError, RecursionError):  # also for a number of thousands of digits
        raise BadDocument("it is not JSON") from None


def check(text: Any) -> str:
    """The text, if it is one that UTF-8 can spell. Raises ``BadDocument``."""
    if not isinstance(text, str):
        raise BadDocument(f"its text is {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadDocument("its text has half of a surrogate pair") from None
    return text


def parse(line: bytes) -> str:
    """The document in a line of a committed file. Raises ``BadDocument``."""
    found = load(line)
    if not isinstance(found, dict) or FIELD not in found:
        raise BadDocument(f'it is not like {{"{FIELD}": ...}}')
    return check(found[FIELD])


def spell(text: str) -> bytes:
    """A document as a line of a committed file, its end included: one spelling for each text."""
    return json.dumps({FIELD: text}, ensure_ascii=False).encode() + b"\n"


class Row(NamedTuple):
    """A document, and the line that it stands in, without its end: where it begins, in bytes."""

    text: str
    line: bytes
    offset: int


def rows(source: Source, name: str) -> Iterator[Row]:
    """The documents of a committed file that is called ``name``, with their lines; empty lines are none.

    Raises ``BadDocument`` with the file and the line.
    """
    offset = 0
    for number, line in enumerate(lines(source), 1):
        if line.strip():
            try:
                text = parse(line)
            except BadDocument as error:
                raise BadDocument(f"{name}:{number}: {error}") from None
            yield Row(text, line, offset)
        offset += len(line) + 1


def documents(source: Source, name: str) -> Iterator[str]:
    """The same without the lines."""
    return (row.text for row in rows(source, name))

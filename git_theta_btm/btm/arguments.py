"""Arguments: the plain values that a fairseq checkpoint was trained with, read off its pickle's opcodes.

No class is looked up and nothing is called: a ``Namespace`` is what the pickle says would be put into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from ..errors import FormatError
from ..readers.archive import members
from ..readers.pickled import walk
from ..readers.symbols import Call, Pairs, Value
from ..source import Source

Plain: TypeAlias = str | int | float | bool | None

_ZIP = b"PK\x03\x04"
_BEFORE = 3  # pickles before the one that was saved, in files older than PyTorch 1.6
_LONGEST = 4096  # characters of a text that is an argument


def arguments(source: Source) -> Mapping[str, Plain]:
    """What ``args``, or ``cfg["model"]`` of newer files, says in numbers, truth values and texts; nothing if neither
    does. Raises ``FormatError`` for what is no file of PyTorch."""
    saved = dict(_named(_saved(source)))
    found = saved.get("args")
    if found is None:
        found = dict(_named(saved.get("cfg"))).get("model")
    return {name: value for name, value in _named(found) if _is_plain(value)}  # type: ignore[misc]


def _saved(source: Source) -> Value:
    """What was saved, in symbols."""
    if source.read(0, min(4, source.size)) != _ZIP:
        start = 0
        for _ in range(_BEFORE):
            start = walk(source, start).end
        return walk(source, start).value
    found = [member for name, member in members(source).items() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1 or found[0] is None:
        raise FormatError("a zip archive that torch.save has not written")
    return walk(source, found[0].offset, found[0].offset + found[0].size).value


def _named(value: Value) -> Iterator[tuple[str, Value]]:
    """The entries of a dictionary, or the attributes of an object, that have a text for a name."""
    for pairs in (value, *((value.pairs, value.state) if isinstance(value, Call) else ())):
        if isinstance(pairs, Pairs):
            for name, item in zip(pairs[::2], pairs[1::2], strict=False):
                if isinstance(name, str):
                    yield name, item


def _is_plain(value: Value) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < _LONGEST)

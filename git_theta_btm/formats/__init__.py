"""Formats: where in a file the tensors are.

A format is a module with one function, ``locate(source) -> list[Located]``. It reads headers only, never a tensor's
bytes, and never runs, imports or builds anything that the file names. It raises ``FormatError`` for whatever is not
exactly as the format's specification says; the file is then stored opaque, which is always right, only less fine.

Which module is asked follows from the file's first bytes, never from its name or a setting.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from ..errors import FormatError
from ..layout import Located
from ..source import Source

__all__ = ["MAGIC", "OPAQUE", "Format", "Located", "locate"]

OPAQUE = "opaque"


GROUP = "git_theta_btm.formats"
_OVERLAP = 16  # times the size of a file that its distinct tensors may add up to; views in practice reach three


class Format(Protocol):
    """What a format module must have. That of a plug-in has ``MAGIC`` too: the offset and the bytes it is known by."""

    def locate(self, source: Source) -> list[Located]:
        """All tensors of the file, in any order; ranges may coincide (tied weights) or overlap (views)."""


# name of the module, offset of the magic bytes, magic bytes. Formats that share their magic are asked in this order.
MAGIC: Sequence[tuple[str, int, bytes]] = (
    ("safetensors", 8, b"{"),
    ("torch_zip", 0, b"PK\x03\x04"),
    ("npz", 0, b"PK\x03\x04"),
    ("torch_legacy", 0, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."),
    ("npy", 0, b"\x93NUMPY"),
    ("gguf", 0, b"GGUF"),
    ("hdf5", 0, b"\x89HDF\r\n\x1a\n"),
)


def locate(source: Source) -> tuple[str, list[Located]]:
    """The file's format by its bytes, and its tensors; ``("opaque", [])`` if no format answers for it."""
    head = source.read(0, min(64, source.size))
    for name, at, magic in MAGIC:
        if head[at : at + len(magic)] == magic:
            module: Format = import_module(f".{name}", __name__)
            try:
                return name, _checked(module.locate(source), source.size)
            except FormatError:
                continue
    return _plugged_in(source, head)


def _plugged_in(source: Source, head: bytes) -> tuple[str, list[Located]]:
    from importlib.metadata import entry_points  # 70 ms that a file of a built-in format does not have to pay

    for point in sorted(entry_points(group=GROUP)):
        module = point.load()
        at, magic = module.MAGIC
        if head[at : at + len(magic)] == magic:
            try:
                return point.name, _checked(module.locate(source), source.size)
            except FormatError:
                continue
    return OPAQUE, []


def _checked(found: list[Located], size: int) -> list[Located]:
    names = {item.name for item in found}
    if len(names) != len(found):
        raise FormatError("two tensors have the same name")
    for item in found:
        if not 0 <= item.offset <= item.end <= size:
            raise FormatError(f"tensor {item.name[:100]!r} lies outside the file")
        if not item.name.isascii() and json.loads(json.dumps(item.name)) != item.name:
            raise FormatError(f"no text can hold the name {item.name[:100]!r}")  # a pair of lone surrogates
    if sum(end - start for start, end in {(item.offset, item.end) for item in found}) > _OVERLAP * size:
        raise FormatError("the tensors overlap many times over")  # each is hashed by itself
    return found

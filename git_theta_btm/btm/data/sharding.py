"""A big file into files of so many lines: together they are the file again, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import chain, islice

from ...errors import ThetaError, UsageError
from .compressed import SUFFIXES, pieces, writing


def shard(path: str, lines: int, directory: str | None = None, *, delete: bool = False) -> list[tuple[str, int]]:
    """Write ``NAME_0.jsonl.zst``, ``NAME_1.jsonl.zst``, ... beside the file or into ``directory``; returns what was
    written and its lines. They are compressed as the file is.

    With ``delete`` the file goes, after the shards were read again and found to be the whole of it. Raises
    ``ThetaError`` for a broken file or a shard that is there already; no shard stays then.
    """
    if lines < 1:
        raise UsageError(f"a shard cannot have {lines} lines: it has at least 1")
    written: list[tuple[str, int]] = []
    whole = sha256()
    rest = _lines(path)
    try:
        while (first := next(rest, None)) is not None:
            name = _name(path, len(written), directory)
            if os.path.exists(name):
                raise ThetaError(f"{name} is there already: shards never overwrite a file")
            written.append((name, 0))
            count = 0
            with writing(name, name) as file:
                for line in chain([first], islice(rest, lines - 1)):
                    whole.update(line)
                    file.write(line)
                    count += 1
            written[-1] = name, count
        if delete:
            _remove(path, [name for name, _ in written], whole.digest())
    except BaseException:
        for name, _ in written:
            with suppress(FileNotFoundError):
                os.unlink(name)
        raise
    return written


def _lines(path: str) -> Iterator[bytes]:
    """Lines with their ends."""
    rest: list[bytes] = []
    for piece in pieces(path):
        *others, last = piece.split(b"\n")
        for line in others:
            yield b"".join([*rest, line, b"\n"])
            rest = []
        rest.append(last)
    if any(rest):
        yield b"".join(rest)


def _name(path: str, number: int, directory: str | None) -> str:
    folder, name = os.path.split(path)
    packing = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    stem, suffix = os.path.splitext(name.removesuffix(packing))
    return os.path.join(folder if directory is None else directory, f"{stem}_{number}{suffix}{packing}")


def _remove(path: str, shards: list[str], digest: bytes) -> None:
    found = sha256()
    for name in shards:
        for piece in pieces(name):
            found.update(piece)
    if found.digest() != digest:
        raise ThetaError(f"what was written is not what was read: {path} stays")
    os.unlink(path)

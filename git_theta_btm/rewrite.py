"""Rewrite: the same file with other bytes for some of its tensors.

Works for every format, since a tensor keeps its place and its length; the checksums of zip members are computed anew.
Streamed: memory is bounded by a few blocks, whatever the size of the tensors.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from . import formats
from .errors import FormatError, ThetaError
from .parallel import stream_threads
from .readers.checksums import checksums
from .source import Data, FileSource, Source, view, write_all

_ARCHIVES = ("torch_zip", "npz")
_BLOCK = 4 << 20  # bytes: a chunk of an encoded object, which is decoded whole however little of it is read
_WHOLE = 32 << 20  # bytes: what is no longer is read in one go if its source says so


@dataclass(frozen=True, slots=True)
class _Patch:
    """New bytes for ``[start, end)`` of the file."""

    start: int
    end: int
    name: str
    source: Source


def rewrite(
    source: Source, replacements: Mapping[str, Source], out: int, wrote: Callable[[int], None] = lambda size: None
) -> None:
    """Write ``source`` with the bytes of some tensors, by name, replaced to the empty file ``out``, open for both
    reading and writing.

    A tensor that shares its memory with others (tied weights, views) changes in all of them. The new bytes are read
    by several threads. Raises ``FormatError`` for a name or size that the file does not have, and ``ThetaError`` if
    two replacements of the same memory contradict each other.
    """
    container, located = formats.locate(source)
    places = {item.name: item for item in located}
    patches = []
    for name, new in replacements.items():
        item = places.get(name)
        if item is None or item.tensor.nbytes != new.size:
            raise FormatError(f"no tensor {name[:100]!r} of {new.size} bytes in the file")
        patches.append(_Patch(item.offset, item.end, name, new))
    patches.sort(key=lambda patch: (patch.start, patch.end, patch.name))
    for block in stream_threads(lambda job: job(), _jobs(source, patches)):
        wrote(write_all(out, block))
    if container in _ARCHIVES:
        _renew_checksums(source, patches, out)


def _jobs(source: Source, patches: Sequence[_Patch]) -> Iterator[partial[Data]]:
    """What makes each block of the new file, in order."""
    position = 0
    for run in _runs(patches):
        start, end = run[0].start, max(patch.end for patch in run)
        yield from _blocks(partial(view, source), position, start)
        yield from _blocks(partial(_patched, run), start, end, _block(run, end - start))
        position = end
    yield from _blocks(partial(view, source), position, source.size)


def _block(run: Sequence[_Patch], size: int) -> int:
    """Bytes to be read at a time: all where a source is ``at_once``, which holds what it is made of until then."""
    at_once = size <= _WHOLE and any(getattr(patch.source, "at_once", False) for patch in run)
    return _WHOLE if at_once else _BLOCK


def _blocks(make: partial[Data], start: int, end: int, block: int = _BLOCK) -> Iterator[partial[Data]]:
    return (partial(make, at, min(block, end - at)) for at in range(start, end, block))


def _runs(patches: Sequence[_Patch]) -> Iterator[list[_Patch]]:
    """Patches that overlap, together; those of no bytes are left out."""
    run: list[_Patch] = []
    end = 0
    for patch in patches:
        if run and patch.start >= end:
            yield run
            run = []
        if patch.start < patch.end:
            run.append(patch)
            end = max(end, patch.end)
    if run:
        yield run


def _patched(run: Sequence[_Patch], at: int, size: int) -> Data:
    """``size`` bytes from ``at``, all of which some patch of the run covers."""
    if len(run) == 1:
        return view(run[0].source, at - run[0].start, size)
    block = bytearray(size)
    covered = at
    for patch in run:
        begin, end = max(at, patch.start), min(at + size, patch.end)
        if begin >= end:
            continue
        new = view(patch.source, begin - patch.start, end - begin)
        shared = max(0, min(covered, end) - begin)
        if memoryview(block)[begin - at : begin - at + shared] != new[:shared]:
            raise ThetaError(f"{patch.name} shares its memory with another parameter that gets other values")
        block[begin - at : end - at] = new
        covered = max(covered, end)
    return bytes(block)


def _renew_checksums(source: Source, patches: Sequence[_Patch], out: int) -> None:
    new = FileSource(out)
    for member in checksums(source):
        if not any(patch.start < member.end and member.start < patch.end for patch in patches):
            continue
        crc = 0
        for at in range(member.start, member.end, _BLOCK):
            crc = zlib.crc32(new.read(at, min(_BLOCK, member.end - at)), crc)
        for field in member.fields:
            os.pwrite(out, struct.pack("<L", crc), field)


@contextmanager
def replacing(path: str) -> Iterator[tuple[FileSource, int]]:
    """A file as it is, and the descriptor of a new one that takes its place, with its mode, if all goes well.

    It does so whole or not at all. Raises ``ThetaError`` if the file changed in the meantime.
    """
    old = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    temporary = os.path.join(os.path.dirname(path), f".{os.getpid()}-{os.urandom(8).hex()}.theta")
    try:
        before = os.fstat(old)
        new = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield FileSource(old), new
            os.fchmod(new, stat.S_IMODE(before.st_mode))
            os.fsync(new)
            if _key(os.stat(path, follow_symlinks=False)) != _key(before):
                raise ThetaError(f"{path} changed in the meantime: it is left as it is")
            os.replace(temporary, path)
        finally:
            os.close(new)
            if os.path.lexists(temporary):
                os.unlink(temporary)
    finally:
        os.close(old)


def _key(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns

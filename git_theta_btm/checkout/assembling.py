"""Assemble: a file written out of band, by several threads, from objects and from the version that stood there before.

What the earlier version has too is copied from it within the kernel, or shared with it where the file system can;
everything else is checked before it is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from functools import partial
from typing import NamedTuple

from ..blobs import Blobs
from ..errors import FormatError, ThetaError
from ..filters.smudge import cut, present, verify
from ..layout import Segment
from ..manifest import Digest, Manifest
from ..parallel import WORKERS, map_threads
from ..source import BLOCK, Data, FileSource, view
from ..store import Memory, ObjectStore
from .replacing import close_aside

_PART = 4 << 20  # bytes written by one job: one chunk of an encoded object
_FICLONE = 0x40049409  # linux/fs.h; ioctl_ficlone(2)

Job = Callable[[], None]
Wrote = Callable[[int], None]  # is told by any thread that so many more bytes of the file are there


@dataclass(frozen=True, slots=True)
class Version:
    """An open file whose bytes are known to be those of a manifest, with its state when that was known. ``spare`` is a
    second name for it; with one it may be closed for a while, and then ``fd`` is -1. A ``nameless`` one is nobody
    else's."""

    manifest: Manifest
    fd: int
    state: os.stat_result
    spare: str = ""
    nameless: bool = False

    def close(self) -> None:
        """Close the file, and take its second name away."""
        if self.spare:
            with suppress(FileNotFoundError):  # it has got its own name back
                os.unlink(self.spare)
        if self.fd >= 0:
            close_aside(self.fd)

    def unchanged(self) -> bool:
        """Whether nobody wrote to it since; that git took its name away changes neither time nor size."""
        return self.is_like(os.fstat(self.fd))

    def is_like(self, state: os.stat_result) -> bool:
        """Whether a file of this state has the size and the time of this one."""
        return (state.st_size, state.st_mtime_ns) == (self.state.st_size, self.state.st_mtime_ns)


class _Run(NamedTuple):
    """Bytes of the new file that the old one has: ``size`` bytes from ``start`` there belong to ``at`` here."""

    at: int
    start: int
    size: int


class Assembler:
    """Writes files from the objects of one store."""

    def __init__(
        self, store: ObjectStore, memory: Memory, workers: int = WORKERS, wrote: Wrote = lambda _: None
    ) -> None:
        self._store, self._memory, self._workers, self._wrote = store, memory, workers, wrote

    def write(self, manifest: Manifest, out: int, old: Version | None = None) -> None:
        """Write the file to a new file that is open for reading and writing. What it holds after an error is void.

        Raises ``MissingObject`` or ``CorruptObject``, naming the parameter, ``ManifestError`` if the layout does not
        fit, and ``ThetaError`` if the disk is too small.
        """
        blobs, pieces = self._content(manifest)
        if old:
            with suppress(FormatError):  # it ended before its time
                self._write(manifest, (blobs, pieces), out, old)
                if old.unchanged():
                    return
        self._write(manifest, (blobs, pieces), out, None)

    def edit(self, manifest: Manifest, old: Version, most: int) -> list[tuple[int, int]] | None:
        """Make the old file the new one where it stands, if at most so many bytes of it change.

        Returns what was written, each offset and size; None if it is too much, and nothing is. All that
        is new is checked before the first byte is written. Raises as ``write`` does.
        """
        blobs, pieces = self._content(manifest)
        here = {(at, _key(piece)) for at, piece in _offsets(self._pieces_of(old))}
        rest = [(at, piece) for at, piece in _offsets(pieces) if (at, _key(piece)) not in here]
        changed = sum(piece.size for _, piece in rest)
        if changed > most:
            return None
        self._check(manifest, blobs, rest)
        map_threads(self._do, list(_writes(blobs, old.fd, rest)), self._workers)
        os.ftruncate(old.fd, manifest.size)
        self._wrote(manifest.size - changed)
        return [(at, piece.size) for at, piece in rest]

    def _content(self, manifest: Manifest) -> tuple[Blobs, list[Segment]]:
        blobs = present(manifest, self._store)
        verify(manifest, blobs, self._memory, [manifest.layout.digest])
        return blobs, cut(manifest, blobs)

    def _check(self, manifest: Manifest, blobs: Blobs, rest: Iterable[tuple[int, Segment]]) -> None:
        """Check the blobs of these segments alone."""
        digests = dict.fromkeys(piece.blob.digest for _, piece in rest if piece.blob)
        verify(manifest, blobs, self._memory, digests)

    def _write(self, manifest: Manifest, content: tuple[Blobs, list[Segment]], out: int, old: Version | None) -> None:
        blobs, pieces = content
        runs, rest = _shared(pieces, self._pieces_of(old) if old else [])
        if old and any(run.at == run.start for run in runs) and _clone(old.fd, out):
            self._wrote(sum(run.size for run in runs if run.at == run.start))
            runs = [run for run in runs if run.at != run.start]
        else:
            _check_space(out, manifest.size)
        os.ftruncate(out, manifest.size)  # never to nothing: ext4 would write the file to disk when it is closed
        check: Job = partial(self._check, manifest, blobs, rest)
        # All copies by one thread: the kernel lets only one write to a file at a time, and the other is not idle.
        copy: Job = partial(self._copy, old.fd if old else -1, out, runs)
        map_threads(lambda job: job(), [check, copy], self._workers)
        map_threads(self._do, list(_writes(blobs, out, rest)), self._workers)

    def _copy(self, source: int, out: int, runs: list[_Run]) -> None:
        for run in runs:
            for done in range(0, run.size, _PART):
                size = min(_PART, run.size - done)
                copy_range(source, out, _Run(run.at + done, run.start + done, size))
                self._wrote(size)

    def _do(self, job: tuple[int, Job]) -> None:
        size, write = job
        write()
        self._wrote(size)

    def _pieces_of(self, old: Version) -> list[Segment]:
        """The segments of the old file; none if its layout cannot be had, and so nothing can be found in it."""
        with suppress(ThetaError):
            blobs = Blobs(old.manifest.objects, self._store)
            verify(old.manifest, blobs, self._memory, [old.manifest.layout.digest])
            return cut(old.manifest, blobs)
        return []


def _key(piece: Segment) -> tuple[Digest | bytes, int]:
    """What tells the bytes of two segments apart."""
    return piece.blob.digest if piece.blob else piece.glue, piece.size


def _offsets(pieces: Iterable[Segment]) -> Iterator[tuple[int, Segment]]:
    at = 0
    for piece in pieces:
        yield at, piece
        at += piece.size


def _shared(pieces: list[Segment], old: list[Segment]) -> tuple[list[_Run], list[tuple[int, Segment]]]:
    """The runs that the old file has too, as long as possible, and the segments that it has not, by offset.

    Bytes that stand at the same place in both are taken from there, so that a shared extent can stay shared.
    """
    somewhere = {_key(piece): at for at, piece in _offsets(old)}
    here = {(at, _key(piece)) for at, piece in _offsets(old)}
    runs: list[_Run] = []
    rest: list[tuple[int, Segment]] = []
    for at, piece in _offsets(pieces):
        key = _key(piece)
        start = at if (at, key) in here else somewhere.get(key)
        if start is None:
            rest.append((at, piece))
        elif runs and (runs[-1].at + runs[-1].size, runs[-1].start + runs[-1].size) == (at, start):
            runs[-1] = runs[-1]._replace(size=runs[-1].size + piece.size)
        else:
            runs.append(_Run(at, start, piece.size))
    return runs, rest


def _writes(blobs: Blobs, out: int, rest: list[tuple[int, Segment]]) -> Iterator[tuple[int, Job]]:
    for at, piece in rest:
        if piece.blob is None:
            yield piece.size, partial(_write_all, out, piece.glue, at)
            continue
        for start in range(0, piece.size, _PART):
            size = min(_PART, piece.size - start)
            yield size, partial(_write_blob, blobs, piece.blob.digest, out, _Run(at + start, start, size))


def _write_blob(blobs: Blobs, digest: Digest, out: int, run: _Run) -> None:
    with blobs.open(digest) as source:
        if isinstance(source, FileSource):
            copy_range(source.fd, out, run)
        else:
            _write_all(out, view(source, run.start, run.size), run.at)


def copy_range(source: int, out: int, run: _Run) -> None:
    """Copy bytes between two files, within the kernel where it can. Raises ``FormatError`` if the source has ended."""
    done = 0
    while done < run.size:
        count = _copy_some(source, out, _Run(run.at + done, run.start + done, run.size - done))
        if not count:
            raise FormatError(f"the file ended at byte {run.start + done}: it changed while it was read")
        done += count


def _copy_some(source: int, out: int, run: _Run) -> int:
    with suppress(OSError, AttributeError):  # not every pair of file systems can do it, and only Linux has it
        if count := os.copy_file_range(source, out, run.size, run.start, run.at):
            return count
    data = os.pread(source, min(BLOCK, run.size), run.start)
    _write_all(out, data, run.at)
    return len(data)


def _write_all(out: int, data: Data, at: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(out, rest, at)
        rest, at = rest[count:], at + count


def _clone(source: int, out: int) -> bool:
    """Make ``out`` share all extents of ``source``, until one of them is written to; whether the file system can."""
    with suppress(OSError):
        ioctl(out, _FICLONE, source)
        return True
    return False


def _check_space(out: int, size: int) -> None:
    """Raise ``ThetaError`` at once where the file would not fit: one digest, named often, makes any size."""
    disk = os.fstatvfs(out)
    if (free := disk.f_bavail * disk.f_frsize) < size:
        raise ThetaError(f"it takes {size} bytes, and the disk has {free}")

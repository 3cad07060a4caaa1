"""Dedup: model files share their space on disk with objects of the store and with each other, where that can be done.

The kernel compares the bytes and shares those that are the same, in one step: ioctl_fideduperange(2). What anyone reads
stays what it is, and so do the times of the files; whatever is written to one of them later is its own again. Only
whole blocks can be shared, and only where both stand at the same distance from the beginning of a block.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fcntl import ioctl
from tempfile import TemporaryFile
from typing import NamedTuple

from ..blobs import Blobs
from ..catalogue import open_catalogue
from ..errors import ThetaError
from ..filters.smudge import cut, verify
from ..layout import Segment
from ..manifest import Digest, Manifest
from ..repository import ModelFile, Repository, read_stub
from ..store import DiskStore, Memory

_FIDEDUPERANGE = 0xC0189436  # linux/fs.h
_RANGE = struct.Struct("=QQHHIqQQiI")  # struct file_dedupe_range with one file_dedupe_range_info
_MOST = 16 << 20  # bytes in one call, as btrfs has it
_DIFFERS = 1  # FILE_DEDUPE_RANGE_DIFFERS
_REFUSALS = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL)

Progress = Callable[[int, int], None]  # files done, and of how many
Content = Digest | bytes  # of a segment: a blob, or glue
Key = tuple[Content, int]  # and its distance in bytes from the beginning of a block


class Unsupported(ThetaError):
    """The file system cannot do it."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file: the bytes of it that are shared now, of ``size``; ``problem`` says why it was left alone."""

    path: str
    size: int = 0
    shared: int = 0
    problem: str = ""


class Place(NamedTuple):
    """Where the same bytes stand: a file, by its path, and an offset in it."""

    path: str
    offset: int


class Share(NamedTuple):
    """``size`` bytes from ``at`` that may share their blocks with those at ``source``."""

    source: Place
    at: int
    size: int


def dedup(
    repository: Repository, paths: Sequence[str] = (), progress: Progress = lambda done, total: None
) -> list[Outcome]:
    """Share what the model files below ``paths`` (all, if there are none) have in common with raw objects of the store
    and with the model files of all worktrees. Stubs are left out.

    Raises ``Unsupported`` if the file system of the store cannot do it, ``ThetaError`` if a path matches no model.
    """
    repository.worktree()
    chosen = repository.models(*paths)
    _check_supported(repository.store)
    files = [(repository, model) for model in chosen]
    others = [(home, model) for home in _worktrees(repository) for model in home.models()]
    taken = {repository.absolute(model.path) for model in chosen}
    outcomes: list[Outcome] = []
    with closing(open_catalogue(repository.store.root)) as memory:
        sharer = _Sharer(repository.store, memory)
        for home, model in others:
            if home.absolute(model.path) not in taken:
                with suppress(ThetaError, OSError):  # it would have been a help
                    sharer.offer(home, model)
        for done, (home, model) in enumerate(files, 1):
            outcomes += sharer.share(home, model)
            progress(done, len(files))
    return outcomes


def _worktrees(repository: Repository) -> Iterator[Repository]:
    rows = repository.git.text("worktree", "list", "--porcelain").split("\n")
    for root in (row.removeprefix("worktree ") for row in rows if row.startswith("worktree ")):
        with suppress(ThetaError, OSError):  # its directory may be gone
            yield Repository(root)


def _check_supported(store: DiskStore) -> None:
    directory = os.path.join(store.root, "tmp")
    os.makedirs(directory, exist_ok=True)
    with TemporaryFile(dir=directory) as one, TemporaryFile(dir=directory) as other:
        block = os.fstatvfs(one.fileno()).f_bsize
        for file in (one, other):
            file.write(b"x" * block)
            file.flush()
        try:
            _share_some(one.fileno(), other.fileno(), Share(Place("", 0), 0, block))
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            raise Unsupported("files cannot share space on this file system; on btrfs and xfs they can") from None


# -- what could be shared --------------------------------------------------------------------------------------------


def plan(pieces: Sequence[Segment], places: dict[Key, Place], block: int) -> list[Share]:
    """The runs of a file, in whole blocks, that stand in other files too."""
    runs: list[Share] = []
    for at, piece in _placed(pieces):
        place = places.get(_key(piece, at % block))
        if place is None:
            continue
        last = runs[-1] if runs else None
        if last and (last.source.path, last.source.offset + last.size, last.at + last.size) == (*place, at):
            runs[-1] = last._replace(size=last.size + piece.size)
        else:
            runs.append(Share(place, at, piece.size))
    return [share for run in runs if (share := _whole_blocks(run, block)).size > 0]


def _whole_blocks(run: Share, block: int) -> Share:
    skipped = -run.at % block
    size = (run.size - skipped) // block * block
    return Share(Place(run.source.path, run.source.offset + skipped), run.at + skipped, size)


def _placed(pieces: Sequence[Segment]) -> Iterator[tuple[int, Segment]]:
    position = 0
    for piece in pieces:
        yield position, piece
        position += piece.size


def _key(piece: Segment, distance: int) -> Key:
    return (piece.blob.digest if piece.blob else piece.glue), distance


class _Sharer:
    """Knows where the bytes are of all files that it has seen."""

    def __init__(self, store: DiskStore, memory: Memory) -> None:
        self._store, self._memory = store, memory
        self._places: dict[Key, Place] = {}

    def offer(self, home: Repository, model: ModelFile) -> None:
        """Let others share with this file, if it is one."""
        path = home.absolute(model.path)
        with _opened(path, model.manifest, os.O_RDONLY) as (fd, manifest):
            self._learn(path, self._pieces(manifest), os.fstatvfs(fd).f_bsize)

    def share(self, home: Repository, model: ModelFile) -> Iterator[Outcome]:
        """Let a file share what it can."""
        path = home.absolute(model.path)
        if read_stub(path) is not None or not os.path.lexists(path):
            return
        try:
            with _opened(path, model.manifest, os.O_RDWR) as (fd, manifest):
                block = os.fstatvfs(fd).f_bsize
                pieces = self._pieces(manifest)
                self._learn_raw(manifest, pieces, block)
                shared = sum(_share(fd, share) for share in plan(pieces, self._places, block))
                self._learn(path, pieces, block)
                yield Outcome(model.path, manifest.size, shared)
        except (ThetaError, OSError) as error:
            yield Outcome(model.path, problem=str(error))

    def _pieces(self, manifest: Manifest) -> list[Segment]:
        blobs = Blobs(manifest.objects, self._store)
        verify(manifest, blobs, self._memory, [manifest.layout.digest])
        return cut(manifest, blobs)

    def _learn(self, path: str, pieces: Sequence[Segment], block: int) -> None:
        for at, piece in _placed(pieces):
            self._places.setdefault(_key(piece, at % block), Place(path, at))

    def _learn_raw(self, manifest: Manifest, pieces: Sequence[Segment], block: int) -> None:
        """Prefer the objects that are blobs as they stand."""
        for at, piece in _placed(pieces):
            if piece.blob and at % block == 0 and self._store.size(piece.blob.digest) == piece.size:
                self._places[piece.blob.digest, 0] = Place(self._store.path(piece.blob.digest), 0)


# -- sharing ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: str, manifest: Manifest | None, flags: int) -> Iterator[tuple[int, Manifest]]:
    """A model file. Raises ``ThetaError`` unless it may be what the manifest says."""
    if manifest is None:
        raise ThetaError("git holds the file itself: 'git add --renormalize' it first")
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size != manifest.size:
            raise ThetaError("it is modified")
        yield fd, manifest
    finally:
        os.close(fd)


def _share(out: int, share: Share) -> int:
    """Share as much as is the same; returns the number of bytes, 0 between two file systems."""
    total = 0
    source = os.open(share.source.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(source).st_dev != os.fstat(out).st_dev:
            return 0
        for done in range(0, share.size, _MOST):
            size = min(_MOST, share.size - done)
            place = Place(share.source.path, share.source.offset + done)
            total += _share_some(source, out, Share(place, share.at + done, size))
        return total
    finally:
        os.close(source)


def _share_some(source: int, out: int, share: Share) -> int:
    """One call. Raises ``OSError``."""
    request = bytearray(_RANGE.pack(share.source.offset, share.size, 1, 0, 0, out, share.at, 0, 0, 0))
    ioctl(source, _FIDEDUPERANGE, request)
    *_, count, status, _ = _RANGE.unpack(request)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return 0 if status == _DIFFERS else int(count)

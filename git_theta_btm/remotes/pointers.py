"""git-lfs's pointers, and the objects that they stand for, in the repository's own LFS storage.

Specification: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256

from ..errors import ThetaError
from ..manifest import Blob, Digest
from ..repository import Repository
from ..source import BLOCK
from .lfs import media

LIMIT = 1024  # bytes: git-lfs takes nothing longer for a pointer
_VERSIONS = rb"https://git-lfs\.github\.com/spec/v1|http://git-media\.io/v/2|https://hawser\.github\.com/spec/v1"
_POINTER = re.compile(
    rb"version (?:" + _VERSIONS + rb")\r?\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\r?\nsize ([0-9]{1,18})\s*"
)


def parse(text: bytes) -> Blob | None:
    """The file that a pointer stands for; None for anything else, and for a file that an extension changed first."""
    match = _POINTER.fullmatch(text) if len(text) < LIMIT and b"\next-" not in text else None
    return Blob(Digest(match[1].decode()), int(match[2])) if match else None


class Storage:
    """The objects of git-lfs in a repository; ``lfs.storage`` says where they are."""

    def __init__(self, repository: Repository) -> None:
        self._media = media(repository.git, repository.common)
        self._git = repository.git
        self._fetched = False

    def _path(self, oid: Digest) -> str:
        return os.path.join(self._media, oid[:2], oid[2:4], oid)

    def open(self, blob: Blob) -> int:
        """A descriptor of the object, checked; what is not here is fetched with all that the remote has, once.

        Raises ``ThetaError`` if it cannot be had, or is corrupt.
        """
        path = self._path(blob.digest)
        if not os.path.isfile(path) and not self._fetched:
            self._fetched = True
            self._git.run("lfs", "fetch", "--all", check=False)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ThetaError(f"LFS object {blob.digest} is not here: 'git lfs fetch --all' must get it first") from None
        if _identify(fd) != blob:
            os.close(fd)
            raise ThetaError(f"LFS object {blob.digest} is corrupt: move {path} away, then 'git lfs fetch --all'")
        return fd

    def store(self, write: Callable[[int], None]) -> Blob:
        """Take over the file that ``write`` writes to a descriptor. Raises ``OSError``."""
        directory = os.path.join(os.path.dirname(self._media), "tmp")
        os.makedirs(directory, exist_ok=True)
        temporary = os.path.join(directory, f"theta-{os.getpid()}-{os.urandom(8).hex()}")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write(fd)
            blob = _identify(fd)
            path = self._path(blob.digest)
            if not os.path.isfile(path):
                os.fsync(fd)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(temporary, path)
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):  # it has been renamed
                os.unlink(temporary)
        return blob


def _identify(fd: int) -> Blob:
    digest, position = sha256(), 0
    while block := os.pread(fd, BLOCK, position):
        digest.update(block)
        position += len(block)
    return Blob(Digest(digest.hexdigest()), position)

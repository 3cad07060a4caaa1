"""The worktree's side of model files: stubs, and putting the real file in a stub's place.

Out of band: git's own way keeps the whole file in git's memory and writes it four to five times slower than ``cp``.
Never follows a symbolic link out of the worktree, never overwrites anything but the stub it looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from .catalogue import Catalogue, NoCatalogue, open_catalogue
from .errors import ThetaError
from .filters.smudge import smudge
from .manifest import Blob, loads
from .repository import ModelFile, Repository, read_stub
from .source import BLOCK

_SETTLED = 10_000_000_000  # ns: a file this much older than the index is not looked at again by the next git status


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one stub: ``size`` bytes of file, or ``problem`` says why it is still a stub."""

    path: str
    size: int = 0
    problem: str = ""


def materialise(repository: Repository, models: Iterable[ModelFile]) -> list[Outcome]:
    """Replace stubs by the files they stand for, and tell git that nothing has changed."""
    outcomes, unchanged = [], []
    catalogue = open_catalogue(repository.store.root)
    try:
        for model in models:
            if (text := read_stub(repository.absolute(model.path))) is not None:
                outcomes.append(_outcome(repository, catalogue, model.path, text))
                unchanged += [model.path] if text == model.text and not outcomes[-1].problem else []
    finally:
        catalogue.close()
    if unchanged:
        # A refresh would not do: where the size differs git takes a file for modified without looking into it.
        paths = b"".join(os.fsencode(path) + b"\0" for path in unchanged)
        repository.git.run("update-index", "-z", "--stdin", stdin=paths)
    return outcomes


def _outcome(repository: Repository, catalogue: Catalogue | NoCatalogue, path: str, text: bytes) -> Outcome:
    try:
        manifest = loads(text)
        for blob in repository.missing(manifest):
            adopt(repository, blob)
        pour = smudge(manifest, repository.store, catalogue)
        absolute = repository.absolute(path)
        _check_inside(repository, absolute)
        catalogue.remember(absolute, manifest, text)
        with _Replacement(absolute, text) as out:
            pour(out)
    except (ThetaError, OSError) as error:
        return Outcome(path, problem=str(error))
    return Outcome(path, manifest.size)


class _Replacement:
    """A new file that takes a stub's place, with its mode, if all goes well; use as a context manager."""

    def __init__(self, path: str, stub: bytes) -> None:
        self._path, self._stub, self._before = path, stub, os.lstat(path)
        directory, name = os.path.split(path)
        self._temporary = os.path.join(directory, f".{name[:200]}.{os.getpid()}.theta")

    def __enter__(self) -> int:
        self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return self._fd

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            os.fchmod(self._fd, stat.S_IMODE(self._before.st_mode))
            os.close(self._fd)
            if kind is None:
                self._replace()
        finally:
            if os.path.lexists(self._temporary):
                os.unlink(self._temporary)

    def _replace(self) -> None:
        now = os.stat(self._temporary).st_mtime_ns
        os.utime(self._temporary, ns=(now, now - _SETTLED))
        if read_stub(self._path) != self._stub:
            raise ThetaError("the stub changed in the meantime: it is left as it is")
        os.replace(self._temporary, self._path)


def _check_inside(repository: Repository, absolute: str) -> None:
    """Raise ``ThetaError`` if a directory on the way to the file is a symbolic link."""
    directory = os.path.dirname(absolute)
    root = repository.worktree()
    inside = os.path.join(os.path.realpath(root), os.path.relpath(directory, root))
    if os.path.realpath(directory) != os.path.normpath(inside):
        raise ThetaError("it lies beyond a symbolic link")


def adopt(repository: Repository, blob: Blob) -> bool:
    """Take an object over from git-lfs's own store if it is there and its bytes are right; linked, or copied."""
    theirs = os.path.join(repository.common, "lfs", "objects", blob.digest[:2], blob.digest[2:4], blob.digest)
    if not os.path.isfile(theirs) or os.path.getsize(theirs) != blob.size or _digest(theirs) != blob.digest:
        return False
    ours = repository.store.path(blob.digest)
    os.makedirs(os.path.dirname(ours), exist_ok=True)
    try:
        os.link(theirs, ours)
    except FileExistsError:
        return True
    except OSError:  # another file system, or one without hard links
        with open(theirs, "rb") as file, repository.store.writer() as writer:
            while block := file.read(BLOCK):
                writer.write(block)
            return writer.commit() == blob.digest
    return True


def _digest(path: str) -> str:
    digest = sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()

"""Prune: objects that no manifest names are removed.

Every manifest in git's object database keeps its objects, whether a ref leads to it or not: what refs, indexes,
stashes, reflogs, worktrees and unfinished merges hold is among them. Git decides when a version is gone; prune follows.

An object is removed only while nobody can be about to name it. Whatever stores objects has the catalogue open while it
does, so prune takes the catalogue for itself: it waits for those that run, and those that come wait for it. What they
answered git with last is still in the catalogue, and counts as if git had it already. Killed at any point, prune has
removed nothing but what nobody needs.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from ..catalogue import NoCatalogue, open_catalogue
from ..errors import ManifestError, ThetaError
from ..git import Git
from ..manifest import Blob, loads
from ..repository import Repository, read_manifest

Progress = Callable[[int, int], None]  # objects looked at, and of how many

_DIGEST = re.compile(rb"[0-9a-f]{64}")
_PATIENCE = 60.0  # seconds to wait for whoever stores objects now
_ROUND = 5.0  # seconds that others are kept waiting: a filter gives up on the catalogue after 30
_ANSWERS = """
    SELECT manifest.path, stat.key, manifest.used, manifest.text FROM manifest
    LEFT JOIN stat ON stat.path = manifest.path AND stat.digest = manifest.digest
"""


@dataclass(frozen=True, slots=True)
class Options:
    """Keep objects that were written after ``since``, in seconds since 1970; ``dry_run``: remove nothing."""

    since: float
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The objects that were removed, or would be, and how many others are needed, or too young to tell."""

    removed: tuple[Blob, ...]
    needed: int
    young: int


def prune(repository: Repository, options: Options, progress: Progress = lambda done, total: None) -> Report:
    """Remove the objects that no manifest names. Raises ``ThetaError``, and removes nothing more, if it cannot be told
    what is needed: an object of git's cannot be read, or others keep storing objects all the time."""
    keep = Keep(every_object(repository))
    keep.renew()
    stored = list(repository.store)
    spare = [oid for oid in stored if oid not in keep.names]
    doomed = [
        Blob(oid, state.st_size) for oid in spare if (state := state_of(repository, oid)) and _is_old(state, options)
    ]
    young, removed = len(spare) - len(doomed), list[Blob]()
    waiting = doomed[::-1]
    while waiting:
        with alone(repository) as catalogue:
            keep.renew()
            keep.add(promised(catalogue, options.since))
            removed += _round(repository, options, keep, waiting)
            progress(len(doomed) - len(waiting), len(doomed))
    if not options.dry_run:
        repository.store.sweep()
    return Report(tuple(removed), len(stored) - len(removed) - young, young)


def _round(repository: Repository, options: Options, keep: Keep, waiting: list[Blob]) -> Iterator[Blob]:
    """Remove objects from ``waiting`` and from the store until the time is up."""
    end = time.monotonic() + _ROUND
    while waiting and time.monotonic() < end:
        blob = waiting.pop()
        state = state_of(repository, blob.digest)
        if state is None or blob.digest in keep.names or not _is_old(state, options):
            continue
        if not options.dry_run:
            os.unlink(repository.store.path(blob.digest))
        yield blob


def _is_old(state: os.stat_result, options: Options) -> bool:
    return state.st_mtime < options.since


def state_of(repository: Repository, oid: str) -> os.stat_result | None:
    """The state of an object's file, if there is one."""
    with suppress(FileNotFoundError):
        return os.stat(os.path.join(repository.store.root, "objects", oid[:2], oid[2:4], oid))
    return None


# -- what is needed --------------------------------------------------------------------------------------------------


def every_object(repository: Repository) -> Git:
    """git as it is without replacements, which would hide the manifests that they stand for."""
    if os.environ.get("GIT_OBJECT_DIRECTORY"):
        raise ThetaError("GIT_OBJECT_DIRECTORY is set: git does not see all of its objects")
    return repository.git.with_environment(GIT_NO_REPLACE_OBJECTS="1")


class Keep:
    """The names of all objects that manifests in git's object database need; it only ever grows."""

    def __init__(self, git: Git) -> None:
        self._git, self._seen = git, set[str]()
        self.names: set[str] = set()

    def renew(self) -> None:
        """Look at what git has come to hold since. Raises ``ThetaError`` if it cannot read one of its objects."""
        new = [oid for oid in self._blobs() if oid not in self._seen]
        with self._git.blobs() as reader:
            self.add(filter(None, (read_manifest(reader, oid) for oid in new)))
        self._seen.update(new)

    def _blobs(self) -> Iterator[str]:
        form = "--batch-check=%(objecttype) %(objectname)"
        for row in self._git.run("cat-file", "--batch-all-objects", "--unordered", form).stdout.decode().splitlines():
            kind, _, oid = row.partition(" ")
            if oid == "missing":
                raise ThetaError(f"git cannot read its object {kind}, which may be a manifest: run 'git fsck'")
            if kind == "blob":
                yield oid

    def add(self, texts: Iterable[bytes]) -> None:
        """Need what these manifests need; of one that cannot be read, everything that could be an object's name."""
        for text in texts:
            try:
                self.names.update(blob.digest for blob in loads(text).needs())
            except ManifestError:
                self.names.update(match[0].decode() for match in _DIGEST.finditer(text))


# -- nobody else -----------------------------------------------------------------------------------------------------


@contextmanager
def alone(repository: Repository) -> Iterator[sqlite3.Connection]:
    """The catalogue, while nobody else has it open. Raises ``ThetaError`` if that does not come to pass.

    A connection in WAL mode holds a shared lock on the file for as long as it is open, used or not:
    https://www.sqlite.org/wal.html#noshm.
    """
    catalogue = open_catalogue(repository.store.root)  # makes it, if there is none or it is broken
    catalogue.close()
    if isinstance(catalogue, NoCatalogue):
        raise ThetaError(f"{repository.store.root} cannot be written to")
    path = os.path.join(repository.store.root, "catalogue.sqlite3")
    with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise ThetaError(
                f"others are storing objects here, or the catalogue is damaged ({error}): try later"
            ) from None


def promised(catalogue: sqlite3.Connection, since: float) -> Iterator[bytes]:
    """The manifests that a filter answered with of late, or would answer with now: git may be writing them."""
    limit = int(since * 1e9)
    for path, key, used, text in catalogue.execute(_ANSWERS):
        with suppress(zlib.error, TypeError):  # what cannot be read is no answer either
            if used >= limit or (key is not None and _may_stand(os.fsdecode(path), key, limit)):
                yield zlib.decompress(text)


def _may_stand(path: str, key: str, since: int) -> bool:
    """Whether a file that was recognised under ``key``, which ends with its change time, is still in the worktree, or
    was there less long ago than ``since``: a ``git add`` may have been answered from memory just before it changed."""
    try:
        changed = os.lstat(path).st_ctime_ns
    except OSError:
        changed = _mtime_of_nearest(os.path.dirname(path))
    return changed >= since or key.endswith(f":{changed}")


def _mtime_of_nearest(directory: str) -> int:
    """When the directory last lost a file; if it is gone itself, the one that it was in."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory) or "."
    return os.stat(directory).st_mtime_ns

"""The catalogue: what this repository remembers from earlier passes, in one SQLite file in the Git common directory.

It is a cache. Deleting it loses nothing; a broken, foreign or unwritable one is ignored or started afresh.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Lock
from typing import TypeVar

from .errors import ManifestError
from .manifest import Digest, Manifest, Stored
from .store import Forgetful, Known

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS seed (value BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS blob (
        digest TEXT PRIMARY KEY, size INTEGER NOT NULL, fingerprint BLOB NOT NULL, sample BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS blob_fingerprint ON blob (fingerprint);
    CREATE INDEX IF NOT EXISTS blob_sample ON blob (sample);
    CREATE TABLE IF NOT EXISTS stored (
        digest TEXT PRIMARY KEY, kind TEXT NOT NULL, oid TEXT NOT NULL, size INTEGER NOT NULL, rest TEXT NOT NULL
        ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS manifest (
        path BLOB, digest TEXT, text BLOB NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (path, digest)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS stat (path BLOB PRIMARY KEY, key TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
"""
_VERSION = 1
_SEED = struct.Struct("<Q")
_KEPT = 200  # manifests remembered for each path: as many branches can be switched between without a second look


Answer = TypeVar("Answer")


class Catalogue:
    """``store.Memory`` on disk, with the stat cache and the last manifests of each path beside it.

    Paths are absolute paths in a worktree. Safe to use from many threads and processes.
    """

    def __init__(self, path: str) -> None:
        """Open or create the catalogue at a path or ``file:`` URI. Raises ``sqlite3.Error`` if that cannot be done."""
        self._lock = Lock()
        # Autocommit: each statement that is not in an explicit transaction stands for itself.
        uri = path.startswith("file:")
        self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False, uri=uri)
        try:
            self._db.execute("PRAGMA synchronous = NORMAL")
            if self._version() == 0:
                self._create()
            if self._version() != _VERSION:
                raise sqlite3.NotSupportedError("a catalogue of another version")
            self.seed = _SEED.unpack(self._db.execute("SELECT value FROM seed").fetchone()[0])[0]
        except BaseException:
            self._db.close()
            raise

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("BEGIN IMMEDIATE")  # two processes may come first at once
        if self._version() == 0:
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO seed VALUES (?)", (os.urandom(8),))
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    def _ask(self, decode: Callable[..., Answer], query: str, *values: object) -> Answer | None:
        """The first row, decoded; nothing where the catalogue is damaged, as where it knows nothing."""
        with suppress(sqlite3.Error, zlib.error, struct.error, ManifestError, ValueError, TypeError):
            with self._lock:
                row = self._db.execute(query, values).fetchone()
            return decode(*row) if row else None
        return None

    def _write(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        """Remember, or let it be: a full or read-only disk must not fail what has been done already."""
        with self._lock, suppress(sqlite3.Error), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(query, rows)

    # -- store.Memory ------------------------------------------------------------------------------------------------

    def sampled(self, sample: bytes, size: int) -> bool:
        return self._ask(bool, "SELECT 1 FROM blob WHERE sample = ? AND size = ?", sample, size) is not None

    def find(self, fingerprint: bytes, size: int) -> Digest | None:
        return self._ask(Digest, "SELECT digest FROM blob WHERE fingerprint = ? AND size = ?", fingerprint, size)

    def fingerprint(self, digest: Digest) -> bytes | None:
        return self._ask(bytes, "SELECT fingerprint FROM blob WHERE digest = ?", digest)

    def learn(self, known: Iterable[Known]) -> None:
        rows = [(item.blob.digest, item.blob.size, item.fingerprint, item.sample) for item in known]
        if rows:
            # A pass that read a whole file in order has taken no sample: it must not wipe out an earlier one.
            self._write(
                "INSERT INTO blob VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET fingerprint = excluded.fingerprint, "
                "sample = CASE excluded.sample WHEN x'' THEN sample ELSE excluded.sample END",
                rows,
            )

    def stored(self, digest: Digest) -> Stored | None:
        return self._ask(_stored, "SELECT kind, oid, size, rest FROM stored WHERE digest = ?", digest)

    def learn_stored(self, places: Iterable[tuple[Digest, Stored]]) -> None:
        rows = [(digest, stored.kind, stored.oid, stored.size, " ".join(stored.rest)) for digest, stored in places]
        if rows:
            self._write("INSERT OR REPLACE INTO stored VALUES (?, ?, ?, ?, ?)", rows)

    # -- manifests by path -------------------------------------------------------------------------------------------

    def manifest(self, path: str, digest: Digest) -> bytes | None:
        """The text last smudged or staged for this version of this path."""
        query = "SELECT text FROM manifest WHERE path = ? AND digest = ?"
        return self._ask(zlib.decompress, query, os.fsencode(path), digest)

    def remember(self, path: str, manifest: Manifest, text: bytes) -> None:
        """Note that ``text`` is how ``manifest`` was last smudged or staged at ``path``."""
        row = (os.fsencode(path), manifest.digest, zlib.compress(text, 1), time.time_ns())
        self._write("INSERT OR REPLACE INTO manifest VALUES (?, ?, ?, ?)", [row])
        self._write(
            "DELETE FROM manifest WHERE path = ?1 AND used < "
            f"(SELECT used FROM manifest WHERE path = ?1 ORDER BY used DESC LIMIT 1 OFFSET {_KEPT})",
            [(os.fsencode(path),)],
        )

    # -- the stat cache ----------------------------------------------------------------------------------------------

    def recall(self, path: str, key: str) -> bytes | None:
        """The manifest's text of the worktree file at ``path`` if its stat ``key`` is the one it was cleaned under."""
        digest = self._ask(Digest, "SELECT digest FROM stat WHERE path = ? AND key = ?", os.fsencode(path), key)
        return self.manifest(path, digest) if digest else None

    def recognise(self, path: str, key: str, digest: Digest) -> None:
        """Note that the worktree file with this stat ``key`` is the version ``digest``."""
        self._write("INSERT OR REPLACE INTO stat VALUES (?, ?, ?)", [(os.fsencode(path), key, digest)])

    def forget(self) -> None:
        """Have every worktree file looked at again, so that objects that are gone are stored anew."""
        self._write("DELETE FROM stat", [()])


def _stored(kind: str, oid: str, size: int, rest: str) -> Stored:
    return Stored(kind, Digest(oid), int(size), tuple(rest.split()))


class NoCatalogue(Forgetful):
    """Stands in where no catalogue can be kept: every pass is the first."""

    def close(self) -> None:
        pass

    def manifest(self, path: str, digest: Digest) -> bytes | None:
        return None

    def remember(self, path: str, manifest: Manifest, text: bytes) -> None:
        pass

    def recall(self, path: str, key: str) -> bytes | None:
        return None

    def recognise(self, path: str, key: str, digest: Digest) -> None:
        pass

    def forget(self) -> None:
        pass


def open_catalogue(directory: str) -> Catalogue | NoCatalogue:
    """The catalogue in ``directory``; a broken one is replaced, and where none can be written there is none."""
    path = os.path.join(directory, "catalogue.sqlite3")
    try:
        os.makedirs(directory, exist_ok=True)
        try:
            return Catalogue(path)
        except (sqlite3.OperationalError, sqlite3.NotSupportedError):
            raise
        except (sqlite3.DatabaseError, struct.error, TypeError):  # not a database, or one without a seed
            os.replace(path, path + ".broken")
            return Catalogue(path)
    except (OSError, sqlite3.Error):
        return _frozen(path)


def _frozen(path: str) -> Catalogue | NoCatalogue:
    """The catalogue on a disk that nobody can write to, if there is one: to look at a repository must not need more."""
    with suppress(OSError, sqlite3.Error, struct.error, TypeError):
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            escaped = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
            return Catalogue(f"file:{escaped}?immutable=1")  # https://www.sqlite.org/uri.html
    return NoCatalogue()

"""One call of a filter in its surroundings: which repository, which file, what git holds open, what is remembered."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

from ..catalogue import Catalogue, NoCatalogue, open_catalogue
from ..errors import ConflictMarkers, ManifestError, MissingObject, ThetaError
from ..gitdir import common_directory
from ..manifest import MAGIC, MAX_TEXT, Blob, Digest, Manifest, is_manifest, loads
from ..source import BLOCK, BytesSource, FileSource, Source, write_all
from ..store import DiskStore
from .caller import holds_open

if TYPE_CHECKING:
    from ..git import Git
    from .smudge import Pour

_IN_MEMORY = 8 << 20  # bytes of standard input kept in memory before it goes to a temporary file
_RACY = 20_000_000  # ns: a file changed this shortly before it was read may change again within one clock tick
_SHARE = 0.8  # of the machine's memory: git keeps a smudged file whole in its own


class Session:
    """The state of one filter call; use as a context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.absolute = os.path.abspath(path)
        self._common = common_directory()
        self.directory = os.path.join(self._common, "theta")
        self._first = not os.path.isdir(self.directory)  # in this repository
        self.store = DiskStore(self.directory, cache(lambda: self._git().waits_for_disk()))
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        self.catalogue: Catalogue | NoCatalogue = open_catalogue(self.directory)
        self._stack.callback(self.catalogue.close)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    # -- clean -------------------------------------------------------------------------------------------------------

    def clean(self) -> bytes:
        """The manifest of the file on stdin; what is a manifest already, or empty, stays as it is."""
        started = time.time_ns()
        fd = self._worktree_file()
        if fd is None:
            return self._clean(self._standard_input())
        before = os.fstat(fd)
        if text := self.catalogue.recall(self.absolute, stat_key(before)):
            return text
        text = self._clean(FileSource(fd))
        settled = max(before.st_mtime_ns, before.st_ctime_ns) + _RACY < started
        if settled and stat_key(os.fstat(fd)) == stat_key(before) and (manifest := _manifest(text)):
            self.catalogue.recognise(self.absolute, stat_key(before), manifest.digest)
        return text

    def _worktree_file(self) -> int | None:
        """The worktree file, if it is certain that its bytes are those on stdin."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        self._stack.callback(os.close, fd)
        return fd if holds_open(os.fstat(fd)) else None

    def _standard_input(self) -> Source:
        """All of stdin with random access: in memory if it is small, else in an unnamed temporary file."""
        head = bytearray()
        blocks = _read_blocks()
        for block in blocks:
            head += block
            if len(head) > _IN_MEMORY:
                break
        else:
            return BytesSource(bytes(head))
        from tempfile import TemporaryFile  # 10 ms that only a long standard input has to pay

        spool = TemporaryFile(dir=self.directory)  # noqa: SIM115 - closed by the stack
        self._stack.enter_context(spool)
        spool.write(head)
        spool.writelines(blocks)
        spool.flush()
        return FileSource(spool.fileno())

    def _clean(self, source: Source) -> bytes:
        if is_manifest(source.read(0, min(source.size, len(MAGIC)))):
            return self._pass_through(source.read(0, min(source.size, MAX_TEXT)))
        if not source.size:
            return b""
        from .clean import clean  # a manifest that passes through needs none of it
        from .identify import Surroundings

        manifest = clean(source, self.store, self.catalogue, Surroundings(self._recorded, self._parent, self._mode))
        text = manifest.dumps()
        self.catalogue.remember(self.absolute, manifest, text)
        self._settle()
        return text

    def _pass_through(self, text: bytes) -> bytes:
        """A stub, unchanged. A broken one may stay as it is committed, so that it can be switched away from."""
        try:
            loads(text)
        except ManifestError as error:
            staged = self._staged()
            if text == staged:
                return text
            if isinstance(error, ConflictMarkers):
                raise ConflictMarkers(
                    f"{error}: choose a side with 'git checkout --ours|--theirs -- {self.path}'"
                ) from None
            remedy = f"; 'git checkout -- {self.path}' brings back what is staged" if staged else ""
            raise ManifestError(f"{error}{remedy}") from None
        return text

    def _recorded(self, digest: Digest) -> Manifest | None:
        """How this version was last smudged or staged here, else what is staged now."""
        return _manifest(self.catalogue.manifest(self.absolute, digest) or self._staged())

    def _parent(self) -> Manifest | None:
        """The version in the parent commit, else what is staged now."""
        return _manifest(self._git().blob(f"HEAD:./{self.path}")) or _manifest(self._staged())

    def _staged(self) -> bytes:
        return self._git().blob(f":./{self.path}")

    def _mode(self) -> str:
        """The attribute ``theta-store`` of the path."""
        from .identify import mode_of  # which asked

        return mode_of(self._git().fields("check-attr", "-z", "theta-store", "--", self.path)[2])

    def _git(self) -> Git:
        from ..git import Git  # starts processes, which the common path never does

        return Git()

    def _settle(self) -> None:
        """Have the hook in a repository that models come to for the first time: a push must bring their objects along.

        git-lfs has its own put in place like this. Whoever takes it out later is not asked again.
        """
        if not self._first:
            return
        from ..remotes import hooks  # once in the life of a repository

        try:
            git = self._git()
            if hooks.install(git) == "foreign":
                say(self.path, f"warning: the {hooks.NAME} hook is not ours to change: {hooks.remedy(git)}")
        except (ThetaError, OSError) as error:
            say(self.path, f"warning: without the {hooks.NAME} hook, push by 'git theta push': {error}")

    # -- smudge ------------------------------------------------------------------------------------------------------

    def smudge(self, *, skip: bool = False) -> None:
        """Print the file whose manifest is on stdin; what is no manifest passes through.

        Never fails for the repository's state: git has already deleted the old file. What cannot be rebuilt is
        written as it is stored, with one line of explanation.
        """
        blocks = _read_blocks()
        head = b""
        while len(head) < len(MAGIC) and (block := next(blocks, b"")):
            head += block
        if not is_manifest(head):
            write_all(1, head)
            for block in blocks:
                write_all(1, block)
            return
        text = head + b"".join(blocks)
        try:
            manifest = loads(text)
            self._check_memory(manifest.size)
            pour = None if skip else self._pour(manifest)
            self._settle()
        except (ThetaError, OSError) as error:
            say(self.path, f"{error}; left as a stub: 'git theta pull' tries again, 'git theta fsck' tells more")
            pour = None
        if pour is None:
            write_all(1, text)
            return
        self.catalogue.remember(self.absolute, manifest, text)
        pour(1)

    def _pour(self, manifest: Manifest) -> Pour:
        """What writes the file, once all its objects are here."""
        from .smudge import smudge  # clean needs none of it

        missing = [blob for blob in manifest.needs() if self.store.size(blob.digest) != blob.size]
        problem = self._fetch(missing) if missing else ""
        try:
            return smudge(manifest, self.store, self.catalogue)
        except MissingObject as error:
            raise MissingObject(f"{error} ({problem})" if problem else str(error)) from None

    def _fetch(self, missing: list[Blob]) -> str:
        """Get objects from a remote, all at once; what went wrong."""
        from ..remotes.fetching import fetch  # an ordinary checkout has everything
        from ..remotes.transfer import Port

        git = self._git()
        if git.configured("theta.fetch", "true", kind="bool") != "true":
            return "theta.fetch is false"
        try:
            return fetch(Port(git, self.store, self._common, self.catalogue), missing).problem
        except ThetaError as error:
            return str(error)

    def _check_memory(self, size: int) -> None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > total * _SHARE:
            raise ThetaError(f"{size} bytes are too many for git, which keeps the whole file in memory")


def _manifest(text: bytes) -> Manifest | None:
    try:
        return loads(text) if is_manifest(text) else None
    except ManifestError:
        return None


def say(path: str, message: object) -> None:
    """One line on stderr, which is where a filter may speak."""
    line = f"theta: {path}: {message}"
    print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line), file=sys.stderr)


def _read_blocks() -> Iterator[bytes]:
    while block := os.read(0, BLOCK):
        yield block


def stat_key(stat: os.stat_result) -> str:
    """What changes whenever a file's bytes may have: restoring the modification time changes the change time."""
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"

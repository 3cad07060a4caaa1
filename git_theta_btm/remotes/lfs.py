"""git-lfs, which carries objects to remotes and back: a few calls for all objects together, never one for each.

What git-lfs says is never trusted: it uploads corrupt files under any name, and ends with exit code 0 when a server
refused an object with HTTP 422. What a remote has is asked before and after, and what came is hashed. It does not flush
what it downloads: an object that a power failure cuts short counts as missing, and comes from the remote again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from itertools import compress
from operator import not_
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any
from urllib.parse import unquote

from ..errors import ThetaError
from ..git import Git
from ..manifest import Blob, Digest
from ..parallel import map_threads
from ..source import BLOCK
from ..store import DiskStore
from .endpoints import endpoint, is_named, is_server
from .quarantine import quarantine

# Objects are no named files, so there is nothing to lock; and a fetch is of what was asked for.
_ALWAYS = ("-c", "lfs.locksverify=false", "-c", "lfs.fetchrecentalways=false", "-c", "lfs.skipdownloaderrors=false")
_LACKING = re.compile(r"\(missing\) \S+ \(([0-9a-f]{64})\)")
_REFUSED = re.compile(r"^ *\[([0-9a-f]{64})\] ", re.MULTILINE)  # such as one that is there with another size
_AGENTS = r"^lfs\.(.*\.)?standalonetransferagent$"
# git-lfs makes two directories for each object that it is asked about; on a disk that takes 3 ms.
_SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
_GLANCE = 0.02  # seconds between two looks for an object that is on its way
_WORDS = 500  # characters of what git-lfs says, which may be a line for each object


def pointer(blob: Blob) -> bytes:
    """The canonical LFS pointer. Specification: git-lfs, docs/spec.md."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{blob.digest}\nsize {blob.size}\n".encode()


def write_pointers(git: Git, blobs: Iterable[Blob]) -> str:
    """Write a pointer for each object, by its id, into git's object database; the name of their tree."""
    blobs = sorted(blobs, key=lambda blob: blob.digest)
    stream = bytearray()
    for mark, blob in enumerate(blobs, 1):
        text = pointer(blob)
        stream += b"blob\nmark :%d\ndata %d\n%s\nget-mark :%d\n" % (mark, len(text), text, mark)
    names = git.run("fast-import", "--quiet", "--depth=0", stdin=bytes(stream)).stdout.decode().split()
    rows = (f"100644 blob {name}\t{blob.digest}\n" for name, blob in zip(names, blobs, strict=True))
    return git.run("mktree", stdin="".join(rows).encode()).stdout.decode().strip()


def _said(stderr: bytes) -> str:
    """The first of what git-lfs said, on one line."""
    return " ".join(stderr.decode(errors="replace").split("\n\n")[0].split())[:_WORDS]


def media(git: Git, common: str) -> str:
    """Where git-lfs keeps its objects."""
    storage = git.configured("lfs.storage", "lfs", kind="path")
    return os.path.join(common, storage, "objects")


class NoRepository(ThetaError):
    """A remote should be a directory of this machine, and is none, or no repository that may be used."""


class Lfs:
    """git-lfs in one repository, towards one remote, which is a name or a URL; with ``url`` only to push there.

    It works in our own store, where an object lies under the path that git-lfs gives it: nothing is copied, and
    ``git lfs prune`` never looks there. Every method raises ``ThetaError`` if there is no git-lfs.
    """

    def __init__(self, git: Git, remote: str, store: DiskStore, url: str = "") -> None:
        self._git, self.remote, self._store, self._url = git, remote, store, url
        storage = os.path.join(store.root, "lfs")  # its own, for it empties ``tmp`` of what it does not know
        for directory in (storage, os.path.join(store.root, "objects")):
            os.makedirs(directory, exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(os.path.join("..", "objects"), os.path.join(storage, "objects"))
        self._options = (*_ALWAYS, "-c", f"lfs.storage={storage}")

    # -- what the remote has -----------------------------------------------------------------------------------------

    @cached_property
    def can_tell(self) -> bool:
        """Whether the remote can be asked what it has: not through a transfer agent that the user has put in place."""
        agents = self._git.run("config", "--get-regexp", _AGENTS, check=False).stdout
        return bool(self._directories) or not agents

    @cached_property
    def _directories(self) -> tuple[str, ...]:
        """Where objects lie in a remote that is a directory of this machine, where no server answers questions.

        git-lfs's own store comes first, which is where they are pushed to; then that of git-theta.
        """
        where = endpoint(self._git, self.remote, self._url)
        if not where.startswith("file://"):
            return ()
        spelled = where.removeprefix("file://")
        path = next(filter(os.path.isdir, (spelled, unquote(spelled))), None)
        said = Git.elsewhere(path).text("lfs", "env") if path else ""
        found = dict(re.findall(r"^(LocalMediaDir|LocalGitStorageDir)=(.+)$", said, re.MULTILINE))
        if "LocalGitStorageDir" not in found:
            raise NoRepository(f"there is no repository at {spelled}")
        return found["LocalMediaDir"], os.path.join(found["LocalGitStorageDir"], "theta", "objects")

    @cached_property
    def _towards(self) -> tuple[tuple[str, ...], str]:
        """Options and the name by which git-lfs finds where to push; of several such places it would take the last."""
        if not self._url:
            return (), self.remote
        if not is_named(self._git, self.remote):
            return (), self._url
        return ("-c", f"remote.{self.remote}.pushurl={self._url}"), self.remote

    @property
    def is_apart(self) -> bool:
        """Whether what is fetched from this remote may come from elsewhere than what is pushed goes to."""
        return bool(self._url) and endpoint(self._git, self.remote) != endpoint(self._git, self.remote, self._url)

    def lacking(self, blobs: Sequence[Blob]) -> set[Digest]:
        """The objects that the remote does not have in this size; all of them if it cannot be asked. Moves no object.

        Raises ``ThetaError`` with git-lfs's words if the remote cannot be reached.
        """
        if not blobs:
            return set()
        if self._directories:
            return {blob.digest for blob in blobs if not any(_has(root, blob) for root in self._directories)}
        if not self.can_tell:
            return {blob.digest for blob in blobs}
        found: set[Digest] = set()
        while blobs:
            missing, refused = self._ask(blobs)
            found |= missing | refused
            # Again without those that are refused: git-lfs may not have come to all others.
            blobs = [blob for blob in blobs if blob.digest not in refused] if refused else []
        return found

    def _ask(self, blobs: Sequence[Blob]) -> tuple[set[Digest], set[Digest]]:
        """The objects that the server would like to have, and those that it refuses to talk about."""
        # A push, from an empty storage, of what may be incomplete: git-lfs asks about every object, uploads none, and
        # names those that the server would have liked to have.
        with quarantine(self._git) as git, TemporaryDirectory(prefix="git-theta-", dir=_SCRATCH) as empty:
            tree = write_pointers(git, blobs)
            commit = git.with_environment(**_NOBODY).text("commit-tree", tree, "-m", "objects")
            options = ("-c", f"lfs.storage={empty}", "-c", "lfs.allowincompletepush=true")
            aim, name = self._towards
            done = git.run(*_ALWAYS, *options, *aim, "lfs", "push", name, commit, check=False)
        said = os.fsdecode(done.stdout + done.stderr)
        refused = {blob.digest for blob in blobs} & set(_REFUSED.findall(said)) if done.returncode else set()
        if done.returncode and not refused:
            raise ThetaError(_said(done.stderr) or f"git lfs push ended with exit code {done.returncode}")
        return {Digest(oid) for oid in _LACKING.findall(said)}, refused

    # -- to and fro --------------------------------------------------------------------------------------------------

    def push(self, digests: Iterable[Digest]) -> bool:
        """Upload objects; whether a second push found nothing left to do. Raises ``ThetaError``."""
        digests = list(digests)
        if self._directories:
            for digest in digests:
                _give(self._store.path(digest), _path(self._directories[0], digest))
            return True
        names = "".join(f"{digest}\n" for digest in digests).encode()
        aim, name = self._towards
        command = (*self._options, *aim, "lfs", "push", "--object-id", name, "--stdin")
        self._git.run(*command, stdin=names, progress=True)
        if not self.can_tell:
            return False
        with TemporaryDirectory(prefix="git-theta-") as directory:
            log = os.path.join(directory, "progress")  # of bytes uploaded; git-lfs-config(5), GIT_LFS_PROGRESS
            self._git.with_environment(GIT_LFS_PROGRESS=log).run(*command, stdin=names)
            return os.path.isfile(log) and not os.path.getsize(log)

    def fetch(self, blobs: Sequence[Blob]) -> str:
        """Download objects; what was said if not all of them came. One whose bytes are wrong is removed."""
        try:
            directories = () if is_server(self._git, self.remote) else self._directories
        except NoRepository as error:
            return str(error)
        if directories:
            wrong = [blob for root in directories for blob in adopt(blobs, root, self._store)]
            return "; ".join(map(self._other_bytes, wrong))
        failed, others = self._download(sorted(blobs, key=lambda blob: blob.digest))
        if failed:
            endpoint(self._git, self.remote)  # raises if there is no git-lfs
        return next(filter(None, others), failed)

    def _download(self, blobs: Sequence[Blob]) -> tuple[str, list[str]]:
        """What git-lfs said if it failed, and what is wrong with each object: they are checked while others come."""
        ended = Event()

        def download() -> str:
            try:
                with quarantine(self._git) as git:
                    command = ("lfs", "fetch", "-I", "*", "-X", "", self.remote, write_pointers(git, blobs))
                    done = git.run(*self._options, *command, check=False, progress=True)
                failed = _said(done.stderr or b"") or f"git lfs fetch ended with exit code {done.returncode}"
                return failed if done.returncode else ""
            finally:
                ended.set()

        jobs: list[Callable[[], Any]] = [download, lambda: map_threads(lambda blob: self._check(blob, ended), blobs)]
        failed, others = map_threads(lambda job: job(), jobs, len(jobs))
        return failed, others

    def _check(self, blob: Blob, ended: Event) -> str:
        """Remove an object if its bytes are wrong, as soon as it is there, or all has ended; and say so."""
        path = self._store.path(blob.digest)
        while not (_size(path) == blob.size or ended.wait(_GLANCE)):
            pass
        if not os.path.isfile(path) or _digest(path) == blob.digest:
            return ""
        os.unlink(path)
        return self._other_bytes(blob)

    def _other_bytes(self, blob: Blob) -> str:
        return f"{self.remote} has other bytes under the name of object {blob.digest}"


_NOBODY = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", "git-theta"), ("EMAIL", "git-theta"), ("DATE", "1000000000 +0000"))
}


def adopt(blobs: Sequence[Blob], directory: str, store: DiskStore) -> list[Blob]:
    """Take objects over from a store of git-lfs into ours, linked or copied; those there whose bytes are wrong."""
    there = [blob for blob in blobs if os.path.isfile(_path(directory, blob.digest))]
    right = map_threads(lambda blob: _digest(_path(directory, blob.digest)) == blob.digest, there)
    for blob in compress(there, right):
        _give(_path(directory, blob.digest), store.path(blob.digest))
    return list(compress(there, map(not_, right)))


def _give(source: str, target: str) -> None:
    """Let another store have an object, too; what was cut short there is replaced."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = f"{target}.{os.getpid()}.theta"
    try:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):  # a link to what is there already is not renamed
            os.unlink(temporary)


def _digest(path: str) -> str:
    digest = sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def _path(directory: str, digest: Digest) -> str:
    return os.path.join(directory, digest[:2], digest[2:4], digest)


def _has(directory: str, blob: Blob) -> bool:
    return _size(_path(directory, blob.digest)) == blob.size

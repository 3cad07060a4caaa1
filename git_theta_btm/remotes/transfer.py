"""Which objects a push or a checkout needs, found out from git itself, and their way to a remote and back.

No record of earlier pushes is kept: after a merge, a rebase, a colleague's commit or a push by someone else it would
be wrong. What a remote has is asked there, each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..blobs import Blobs
from ..catalogue import open_catalogue
from ..errors import CorruptObject, ManifestError, MissingObject, ObjectError, ThetaError
from ..filters.smudge import owners
from ..filters.verify import Verifier
from ..git import Git
from ..manifest import Blob, Digest, Manifest, is_manifest, loads
from ..parallel import map_threads
from ..repository import Repository, read_manifest
from ..store import DiskStore, Memory, MemoryStore
from .lfs import Lfs, adopt, media

LFS_POINTER = b"version https://git-lfs"
_HEAD = 40  # bytes that tell a manifest and a pointer from everything else


@dataclass(frozen=True, slots=True)
class Need:
    """An object that must be on the remote, and what for."""

    blob: Blob
    path: str
    owner: str

    def __str__(self) -> str:
        return f"{self.path}: {self.owner}: object {self.blob.digest}"


@dataclass(frozen=True, slots=True)
class Range:
    """What a range of commits holds: the objects that it needs, broken manifests, and if it has pointers of git-lfs."""

    needs: Mapping[Digest, Need]
    broken: tuple[str, ...] = ()
    pointers: bool = False

    @property
    def blobs(self) -> list[Blob]:
        return [need.blob for need in self.needs.values()]


@dataclass(frozen=True, slots=True)
class Port:
    """A repository as far as transfer is concerned: git in it, its store, and what is remembered about objects."""

    git: Git
    store: DiskStore
    common: str
    memory: Memory

    def lfs(self, remote: str, url: str = "") -> Lfs:
        """git-lfs towards a remote; with ``url``, which git has rewritten, to push there."""
        return Lfs(self.git, remote, self.store, url)

    def has(self, blob: Blob) -> bool:
        return self.store.size(blob.digest) == blob.size


@contextmanager
def opened(repository: Repository) -> Iterator[Port]:
    """The port of a repository, whose catalogue is open meanwhile: nothing is pruned as long as it is."""
    catalogue = open_catalogue(repository.store.root)
    try:
        yield Port(repository.git, repository.store, repository.common, catalogue)
    finally:
        catalogue.close()


# -- what is needed --------------------------------------------------------------------------------------------------


def advertised(git: Git, url: str) -> dict[str, str]:
    """The refs of a remote, by name. Raises ``ThetaError`` if it cannot be reached."""
    rows = (row.split("\t") for row in git.text("ls-remote", url).split("\n") if row)
    return {ref: oid for oid, ref in rows}


def known(git: Git, oids: Iterable[str]) -> list[str]:
    """Those objects that are here, without asking a promisor remote for others."""
    names = "".join(f"{oid}\n" for oid in dict.fromkeys(oids)).encode()
    local = git.with_environment(GIT_NO_LAZY_FETCH="1")
    rows = local.run("cat-file", "--batch-check=%(objectname)", stdin=names).stdout.decode().split("\n")
    return [row for row in rows if row and " " not in row]


def scan(git: Git, wanted: Iterable[str], present: Iterable[str] = ()) -> Range:
    """What all commits (trees, tags) that lead from ``wanted`` and not from ``present`` need."""
    revisions = "".join([*(f"{oid}\n" for oid in wanted), *(f"^{oid}\n" for oid in present)]).encode()
    listed = git.run("rev-list", "--objects", "--stdin", stdin=revisions).stdout
    form = "--batch-check=%(objecttype) %(objectname) %(rest)"
    rows = os.fsdecode(git.run("cat-file", form, stdin=listed).stdout).split("\n")
    needs: dict[Digest, Need] = {}
    broken, pointers = [], False
    with git.blobs() as reader:
        for _, oid, path in (row.split(" ", 2) for row in rows if row.startswith("blob ")):
            head = reader.read(oid, limit=_HEAD) or b""
            pointers |= head.startswith(LFS_POINTER)
            if not is_manifest(head):
                continue
            try:
                for need in _needs(loads(read_manifest(reader, oid) or b""), path):
                    needs.setdefault(need.blob.digest, need)
            except ManifestError as error:
                broken.append(f"{path}: {error}")
    return Range(needs, tuple(broken), pointers)


def _needs(manifest: Manifest, path: str) -> Iterator[Need]:
    names = owners(manifest)
    return (Need(blob, path, names.get(blob.digest, "base")) for blob in manifest.needs())


def needs_of(manifest: Manifest, patterns: Sequence[str]) -> list[Blob]:
    """The objects of those parameters alone whose names match a pattern; all objects if there is no pattern."""
    if not patterns:
        return list(manifest.needs())
    entries = [entry for entry in manifest.entries if any(fnmatchcase(entry.name, pattern) for pattern in patterns)]
    start = {entry.digest for entry in entries if not entry.view}
    if any(entry.view for entry in entries):
        start |= {chunk.digest for chunk in manifest.chunks}
    blobs = Blobs(manifest.objects, MemoryStore())
    wanted = {blobs.lines[digest].oid if digest in blobs.lines else digest for digest in blobs.closure(start)}
    objects = {blob.digest: blob for blob in manifest.needs()}
    if wanted - objects.keys():  # they are small: which pack they are in, only the packs know
        wanted |= {stored.oid for stored in manifest.objects if stored.kind == "pack"}
    return [blob for digest, blob in objects.items() if digest in wanted]


# -- there -----------------------------------------------------------------------------------------------------------


def send(port: Port, lfs: Lfs, needs: Mapping[Digest, Need], *, empty: bool = False) -> list[Blob]:
    """See to it that a remote has all these objects; those that it lacked. An ``empty`` one is not asked before.

    Raises ``MissingObject``, ``CorruptObject`` or ``ThetaError`` naming file, parameter and object.
    """
    if not needs:
        return []
    lacking = list(needs.values())
    if not empty or not all(port.has(need.blob) for need in lacking):
        wanted = lfs.lacking([need.blob for need in lacking])
        lacking = [need for need in lacking if need.blob.digest in wanted]
    if not lacking:
        return []
    _gather(port, lfs, lacking)
    _verify(port, lacking)
    _push(port, lfs, lacking)
    return [need.blob for need in lacking]


def _push(port: Port, lfs: Lfs, needs: Sequence[Need]) -> None:
    """Upload, and believe nothing but what the remote says afterwards. Raises ``ThetaError``."""
    said = ""
    try:
        if lfs.push(need.blob.digest for need in needs):
            return
    except ThetaError as error:
        if not lfs.can_tell:
            raise
        said = f": {error}"
    left = lfs.lacking([need.blob for need in needs]) if lfs.can_tell else set()
    refused = [need for need in needs if need.blob.digest in left]
    if refused:
        raise ThetaError(_several(refused, f"was not accepted by {lfs.remote}") + said)


def _gather(port: Port, lfs: Lfs, needs: Sequence[Need]) -> None:
    """Have these objects here: a clone has all of history, but only the objects that it checked out, and a second
    remote gets the others through it. Of a remote that cannot be asked, to fetch them is the only proof that it has
    them. Raises ``MissingObject``."""
    if all(port.has(need.blob) for need in needs):
        return
    others = [name for name in remotes(port.git) if name != lfs.remote or lfs.is_apart]
    received = receive(port, [need.blob for need in needs], others if lfs.can_tell else [lfs.remote, *others])
    absent = [need for need in needs if not port.has(need.blob)]
    if absent:
        asked = " nor on ".join(dict.fromkeys([lfs.remote, *received.asked]))
        raise MissingObject(_several(absent, f"is neither here nor on {asked}"))


def _several(needs: Sequence[Need], what: str) -> str:
    more = f", and {len(needs) - 1} more" if len(needs) > 1 else ""
    return f"{needs[0]} {what}{more}"


def _verify(port: Port, needs: Sequence[Need]) -> None:
    """Raise ``CorruptObject`` unless every object has the bytes that its name promises."""
    verifier = Verifier(Blobs((), port.store), port.memory, 0)

    def one(need: Need) -> None:
        try:
            verifier.verify(need.blob.digest, need.blob.size)
        except ObjectError as error:
            raise CorruptObject(f"{need.path}: {need.owner}: {error}: see 'git theta fsck'") from None

    map_threads(one, needs)


# -- and back --------------------------------------------------------------------------------------------------------


def remotes(git: Git, *first: str) -> list[str]:
    """Where to look for objects: ``first``, the remote that the branch follows, origin, and then all others."""
    names = [name for name in git.text("remote").split("\n") if name]
    upstream = _upstream(git) if len(names) > 1 else ""
    ordered = [name for name in (upstream, "origin") if name in names]
    return list(dict.fromkeys([*first, *ordered, *names]))


def _upstream(git: Git) -> str:
    """The remote that the branch follows."""
    branch = git.run("symbolic-ref", "--quiet", "--short", "HEAD", check=False).stdout.decode().strip()
    return git.configured(f"branch.{branch}.remote") if branch else ""


def receive(port: Port, blobs: Iterable[Blob], sources: Sequence[str]) -> Received:
    """Get those objects that are not here, from git-lfs's own store or else from the first remote that has them.

    Raises ``ThetaError`` if there is no git-lfs; that a remote fails is part of the result.
    """
    missing = [blob for blob in dict.fromkeys(blobs) if not port.has(blob)]
    wanted = len(missing)
    adopt(missing, media(port.git, port.common), port.store)
    missing = [blob for blob in missing if not port.has(blob)]
    problems: list[str] = []
    asked: list[str] = []
    for remote in sources:
        if not missing:
            break
        asked.append(remote)
        problems.append(port.lfs(remote).fetch(missing))
        missing = [blob for blob in missing if not port.has(blob)]
    problem = next(filter(None, problems), "") if missing else ""
    return Received(wanted - len(missing), tuple(missing), tuple(asked), problem)


@dataclass(frozen=True, slots=True)
class Received:
    """How many objects came, which are still missing, which remotes were asked, and what was said about it."""

    count: int
    missing: tuple[Blob, ...] = ()
    asked: tuple[str, ...] = ()
    problem: str = ""

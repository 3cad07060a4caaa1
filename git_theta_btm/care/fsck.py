"""The check of everything that is stored: manifests, objects, and whether each version could be rebuilt.

A corrupt object is worse than a missing one: it keeps the right one from being stored again until it is moved aside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256

from ..blobs import Blobs
from ..catalogue import open_catalogue
from ..errors import FormatError, ManifestError, MissingObject, ObjectError
from ..layout import Layout, Segment, segments
from ..manifest import Blob, Digest, Entry, Manifest, loads, spell
from ..parallel import map_threads
from ..repository import Repository, read_manifest
from ..source import BLOCK, BytesSource, Source
from ..store import ObjectStore

Progress = Callable[[int, int], None]  # objects done, and of how many
EVERYTHING = ("--all", "--reflog", "--indexed-objects")  # of all worktrees: their HEADs, indexes and reflogs too
Words = tuple[str, str, str]  # parameter, object, problem


@dataclass(frozen=True, slots=True)
class Problem:
    """``where`` is ``<commit>:<path>``, or ``index:<path>``; ``parameter`` and ``object`` are empty if it is not
    about one."""

    where: str
    parameter: str
    object: str
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """How many manifests and objects were checked, and everything that is wrong with them."""

    manifests: int
    objects: int
    problems: tuple[Problem, ...]
    moved: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """``revisions`` instead of everything that git keeps; ``all_objects``: those that no manifest names too;
    ``fix``: move corrupt objects aside."""

    revisions: Sequence[str] = ()
    all_objects: bool = False
    fix: bool = False


def fsck(repository: Repository, options: Options, progress: Progress = lambda done, total: None) -> Report:
    """Check, hashing each object once. Raises ``ThetaError`` if git itself cannot list its objects."""
    found = _manifests(repository, options.revisions)
    sizes = _needed(repository, [oid for oid, _ in found])
    if options.all_objects:
        sizes = {oid: repository.store.size(oid) or 0 for oid in repository.store} | sizes
    bad = _check_objects(repository.store, [Blob(oid, size) for oid, size in sizes.items()], progress)
    problems = list(_problems(repository, found, bad))
    named = {problem.object for problem in problems}
    problems += [Problem("", "", oid, words) for oid, words in bad.items() if oid not in named]
    moved = 0
    if bad:
        _forget(repository)
        moved = sum(_set_aside(repository, oid) for oid in bad) if options.fix else 0
    return Report(len(found), len(sizes), tuple(problems), moved)


# -- what there is ---------------------------------------------------------------------------------------------------


def _manifests(repository: Repository, revisions: Sequence[str]) -> list[tuple[str, str]]:
    """Object name and some path of every blob that claims to be a manifest."""
    scope = ("--end-of-options", *revisions) if revisions else EVERYTHING
    listed = repository.git.run("rev-list", "--objects", *scope).stdout
    form = "--batch-check=%(objecttype) %(objectname) %(rest)"
    rows = os.fsdecode(repository.git.run("cat-file", form, stdin=listed).stdout).split("\n")
    blobs = [row.split(" ", 2)[1:] for row in rows if row.startswith("blob ")]
    with repository.git.blobs() as reader:
        return [(oid, path) for oid, path in blobs if read_manifest(reader, oid) is not None]


def _needed(repository: Repository, oids: Iterable[str]) -> dict[Digest, int]:
    """The objects that all manifests together need, with their sizes in bytes."""
    sizes: dict[Digest, int] = {}
    with repository.git.blobs() as reader:
        for oid in oids:
            with suppress(ManifestError):  # it is reported where each manifest is looked at
                sizes |= {blob.digest: blob.size for blob in loads(read_manifest(reader, oid) or b"").needs()}
    return sizes


# -- objects ---------------------------------------------------------------------------------------------------------


def _check_objects(store: ObjectStore, blobs: Sequence[Blob], progress: Progress) -> dict[Digest, str]:
    """What is wrong with each object that is not right."""
    done: list[Digest] = []

    def check(blob: Blob) -> str:
        words = _condition(store, blob)
        done.append(blob.digest)
        progress(len(done), len(blobs))
        return words

    conditions = map_threads(check, blobs)
    return {blob.digest: words for blob, words in zip(blobs, conditions, strict=True) if words}


def _condition(store: ObjectStore, blob: Blob) -> str:
    try:
        with store.open(blob.digest) as source:
            if source.size != blob.size:
                return f"corrupt: {source.size} bytes instead of {blob.size}"
            digest = _digest(source, 0, source.size)
    except MissingObject:
        return "missing"
    except (OSError, FormatError) as error:
        return f"unreadable: {error}"
    return "" if digest == blob.digest else f"corrupt: its SHA-256 is {digest}"


def _digest(source: Source, start: int, end: int) -> str:
    digest = sha256()
    _feed(digest.update, source, start, end)
    return digest.hexdigest()


def _feed(update: Callable[[bytes], None], source: Source, start: int, end: int) -> None:
    step = 4 * BLOCK  # a whole chunk of an encoded object, which is decoded again for every part of it that is read
    for offset in range(start, end, step):
        update(source.read(offset, min(step, end - offset)))


def _forget(repository: Repository) -> None:
    catalogue = open_catalogue(repository.store.root)
    catalogue.forget()
    catalogue.close()


def _set_aside(repository: Repository, oid: Digest) -> bool:
    """Move an object to ``theta/corrupt``; whether it was there."""
    directory = os.path.join(repository.store.root, "corrupt")
    os.makedirs(directory, exist_ok=True)
    with suppress(FileNotFoundError):
        os.replace(repository.store.path(oid), os.path.join(directory, oid))
        return True
    return False


# -- manifests -------------------------------------------------------------------------------------------------------


def _problems(repository: Repository, found: Iterable[tuple[str, str]], bad: dict[Digest, str]) -> Iterator[Problem]:
    seen: set[tuple[Digest, str]] = set()
    with repository.git.blobs() as reader:
        for oid, path in found:
            try:
                manifest = loads(read_manifest(reader, oid) or b"")
                wrong = list(_wrong(manifest, bad)) or list(_Rebuilt(manifest, repository.store, seen).problems())
            except (ManifestError, ObjectError, FormatError) as error:
                wrong = [("", "", str(error))]
            where = f"{_commit(repository, oid)}:{path}" if wrong else ""
            yield from (Problem(where, *words) for words in wrong)


def _wrong(manifest: Manifest, bad: dict[Digest, str]) -> Iterator[Words]:
    names = _names(manifest)
    names |= {stored.oid: names.get(stored.rest[0], "") for stored in manifest.objects if stored.encoded}
    for blob in manifest.needs():
        if blob.digest in bad:
            yield names.get(blob.digest, ""), blob.digest, bad[blob.digest]


def _names(manifest: Manifest) -> dict[str, str]:
    """What to call each blob: by the first parameter that it is."""
    return {entry.digest: spell(entry.name) for entry in reversed(manifest.entries) if not entry.view}


def _commit(repository: Repository, oid: str) -> str:
    """The oldest commit that is known to hold a blob."""
    search = ("log", "--all", "--reflog", "-m", "--format=%h", f"--find-object={oid}")
    commits = repository.git.run(*search, check=False).stdout.decode().split()
    return commits[-1] if commits else "index"


class _Rebuilt:
    """A file that could be rebuilt, all objects being right: the check of what the manifest says about them."""

    def __init__(self, manifest: Manifest, store: ObjectStore, seen: set[tuple[Digest, str]]) -> None:
        """``seen`` are blobs, each with the line of the object it is decoded from, that have been right before."""
        self._manifest, self._seen = manifest, seen
        self._blobs = Blobs(manifest.objects, store)

    def problems(self) -> Iterator[Words]:
        names = _names(self._manifest)
        wrong = [blob for blob in self._manifest.blobs() if not self._is_right(blob)]
        yield from ((names.get(blob.digest, ""), blob.digest, "what is stored for it is not it") for blob in wrong)
        if wrong:
            return
        with self._blobs.open(self._manifest.layout.digest) as source:
            layout = Layout.loads(source.read(0, source.size))
        runs = list(_placed(segments(self._manifest, layout)))
        for entry, offset in zip(self._manifest.entries, layout.offsets, strict=True):
            if entry.view and self._digest(runs, entry, offset) != entry.digest:
                yield spell(entry.name), entry.digest, "the chunks that it is a view of hold other bytes"

    def _is_right(self, blob: Blob) -> bool:
        """Whether a blob that is no object of its own, so that no object's name vouches for it, has its digest."""
        line = self._blobs.lines.get(blob.digest)
        if line is None and not blob.packed:
            return True
        if line is not None and (blob.digest, str(line)) in self._seen:
            return True
        try:
            with self._blobs.open(blob.digest) as source:
                right = source.size == blob.size and _digest(source, 0, source.size) == blob.digest
        except (ObjectError, FormatError):
            return False
        if right and line:
            self._seen.add((blob.digest, str(line)))
        return right

    def _digest(self, runs: Sequence[tuple[int, Segment]], entry: Entry, start: int) -> str:
        """The SHA-256 of a range of the file."""
        digest = sha256()
        end = start + entry.tensor.nbytes
        for at, segment in runs:
            low, high = max(start, at) - at, min(end, at + segment.size) - at
            if low >= high:
                continue
            with (
                self._blobs.open(segment.blob.digest)
                if segment.blob
                else nullcontext(BytesSource(segment.glue)) as source
            ):
                _feed(digest.update, source, low, high)
        return digest.hexdigest()


def _placed(pieces: Iterable[Segment]) -> Iterator[tuple[int, Segment]]:
    position = 0
    for piece in pieces:
        yield position, piece
        position += piece.size

"""Conversions: what a file becomes when a history is migrated.

Import: plain files and git-lfs pointers become manifests. Export: manifests become pointers or plain files. Each is the
other's inverse, in the attributes files too, as long as nobody wrote to those by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile

from ..catalogue import Catalogue, NoCatalogue
from ..errors import ManifestError, ThetaError
from ..filters.clean import clean
from ..filters.identify import Surroundings
from ..filters.smudge import smudge
from ..git import BlobReader, Git
from ..manifest import Digest, Manifest, is_manifest, loads
from ..remotes.lfs import pointer
from ..remotes.pointers import LIMIT, Storage, parse
from ..repository import Repository, read_manifest
from ..setup import attributes
from ..source import BytesSource, FileSource, Source
from . import transcription
from .gitobjects import PackWriter
from .transcription import Probe


@dataclass(frozen=True, slots=True)
class Version:
    """A file where it first turned up in the history, its size in bytes, and what git held of it: ``plain``, ``lfs``
    or ``theta``."""

    path: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What conversions work with; ``versions`` collects what they met. ``dry_run``: nothing is converted."""

    repository: Repository
    git: Git  # that shows every object as it is
    reader: BlobReader
    pack: PackWriter
    catalogue: Catalogue | NoCatalogue
    probe: Probe
    dry_run: bool = False
    versions: list[Version] = field(default_factory=list)

    def known_as(self, path: str) -> str:
        """What the catalogue calls a file."""
        return os.path.join(self.repository.root or "", path)


class Import:
    """Files become manifests, each stored in terms of the version before it."""

    def __init__(self, bench: Bench, patterns: Mapping[str, frozenset[str]], modes: Mapping[str, str]) -> None:
        """``patterns`` are those of the attributes lines to come, each with all paths that it matches; ``modes`` says
        how the files at some paths are to be stored."""
        self._bench, self._patterns, self._modes = bench, patterns, modes
        self._storage = Storage(bench.repository)
        self._done: dict[str, str | None] = {}
        self._digests: dict[str, Digest] = {}

    def file(self, path: str, oid: str, before: str | None) -> str | None:
        if oid not in self._done:
            self._done[oid] = _named(path, lambda: self._convert(path, oid, before))
        return self._done[oid]

    def _convert(self, path: str, oid: str, before: str | None) -> str | None:
        head = self._bench.reader.read(oid, limit=LIMIT) or b""
        if not head or is_manifest(head):
            return oid if head else None  # an empty file stays one, and has no part in this
        blob = parse(head)
        if self._bench.dry_run:
            size = blob.size if blob else int(self._bench.git.text("cat-file", "-s", oid))
            self._bench.versions.append(Version(path, "lfs" if blob else "plain", size))
            return None
        if blob is None:
            return self._clean(path, oid, BytesSource(self._bench.reader.read(oid) or b""), ("plain", before))
        with open(self._storage.open(blob), "rb", buffering=0) as file:
            return self._clean(path, oid, FileSource(file.fileno()), ("lfs", before))

    def _clean(self, path: str, oid: str, source: Source, origin: tuple[str, str | None]) -> str:
        kind, before = origin
        bench, known_as = self._bench, self._bench.known_as(path)

        def parent() -> Manifest | None:
            digest = self._digests.get(before) if before else None
            text = bench.catalogue.manifest(known_as, digest) if digest else None
            return loads(text) if text else None

        surroundings = Surroundings(parent=parent, mode=lambda: self._modes.get(path, "fast"))
        manifest = clean(source, bench.repository.store, bench.catalogue, surroundings)
        text = manifest.dumps()
        bench.catalogue.remember(known_as, manifest, text)  # prune then knows of it, and so does the next git add
        bench.versions.append(Version(path, kind, source.size))
        self._digests[oid] = manifest.digest
        return bench.pack.add("blob", text)

    def attributes(self, content: bytes, directory: str, models: Sequence[str]) -> bytes:
        full = {directory + model for model in models}
        used = [pattern for pattern, paths in self._patterns.items() if not full.isdisjoint(paths)]
        content = transcription.from_lfs(content, used)
        if not directory:
            content = attributes.add(content, used)
        return self._bench.probe.settle(content, directory, models, transcription.THETA)


class Export:
    """Manifests become git-lfs's pointers, or with ``plain`` the files themselves."""

    def __init__(self, bench: Bench, *, plain: bool) -> None:
        self._bench, self._plain = bench, plain
        self._storage = Storage(bench.repository)
        self._done: dict[str, str | None] = {}

    def file(self, path: str, oid: str, before: str | None) -> str | None:
        if oid not in self._done:
            self._done[oid] = _named(path, lambda: self._convert(path, oid))
        return self._done[oid]

    def _convert(self, path: str, oid: str) -> str | None:
        text = read_manifest(self._bench.reader, oid)
        if text is None:
            return None
        manifest = loads(text)
        self._bench.versions.append(Version(path, "theta", manifest.size))
        if self._bench.dry_run:
            return None
        pour = smudge(manifest, self._bench.repository.store, self._bench.catalogue)
        if not self._plain:
            return self._bench.pack.add("blob", pointer(self._storage.store(pour)))
        with TemporaryFile() as file:
            pour(file.fileno())
            file.seek(0)
            return self._bench.pack.add("blob", file.read())

    def attributes(self, content: bytes, directory: str, models: Sequence[str]) -> bytes:
        if self._plain:
            content = attributes.remove(content, attributes.patterns_in(content))
            return self._bench.probe.settle(content, directory, models, transcription.PLAIN)
        content = transcription.to_lfs(content)
        return self._bench.probe.settle(content, directory, models, transcription.LFS)


def _named(path: str, convert: Callable[[], str | None]) -> str | None:
    """Have an error say which file it is about."""
    try:
        return convert()
    except ManifestError:
        return None  # a forged or broken manifest stays what it is
    except ThetaError as error:
        raise type(error)(f"{path}: {error}") from None

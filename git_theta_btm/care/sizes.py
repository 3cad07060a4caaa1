"""How much room models take: as files, as distinct tensors, as stored objects. Only manifests are read for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..manifest import Digest, Manifest, order
from ..repository import Repository
from .versions import Manifests, Step, steps

Grouping = Literal["branch", "commit", "path", "parameter"]
Key = tuple[str, Digest]  # a path and the identity of a version of it


@dataclass(frozen=True, slots=True)
class Room:
    """What a group of versions takes, in bytes.

    ``logical`` is the sum of the files, one for each version of each path; ``copies`` counts the same file once, as
    git-lfs would store it; ``unique`` counts each tensor, chunk and layout once; ``stored`` each object once.
    ``added`` is the part of ``stored`` that no earlier commit has, or no other branch, path or parameter.
    """

    name: str
    versions: int = 0
    logical: int = 0
    copies: int = 0
    unique: int = 0
    stored: int = 0
    added: int = 0

    @property
    def ratio(self) -> float:
        """``stored`` as a share of ``copies``; 1 if there are none."""
        return self.stored / self.copies if self.copies else 1.0


@dataclass(slots=True)
class _Group:
    """Versions, and the digests of their blobs and objects with the sizes of these."""

    files: dict[Key, int] = field(default_factory=dict)
    blobs: dict[Digest, int] = field(default_factory=dict)
    objects: dict[Digest, int] = field(default_factory=dict)

    def merge(self, other: _Group) -> None:
        self.files |= other.files
        self.blobs |= other.blobs
        self.objects |= other.objects

    def room(self, name: str, added: int) -> Room:
        copies = {digest: size for (_, digest), size in self.files.items()}
        logical, full, unique, stored = (
            sum(sizes.values()) for sizes in (self.files, copies, self.blobs, self.objects)
        )
        return Room(name, len(self.files), logical, full, unique, stored, added)


Parts = dict[str, _Group]
Split = Callable[[str, Manifest], Parts]


def sizes(repository: Repository, revisions: Sequence[str] = (), by: Grouping | None = None) -> list[Room]:
    """The room that everything reachable from ``revisions`` (all refs, if there are none) takes, group by group; the
    last one is the total. Raises ``ThetaError`` if there is no such revision."""
    walk = steps(repository, ["--end-of-options", *revisions] if revisions else ["--all"])
    with repository.git.blobs() as reader:
        manifests = Manifests(reader)
        commits = _commits(walk, manifests, _whole)
        finest = _commits(walk, manifests, _parameters) if by == "parameter" else commits
    total = _union(commits.values())
    last = total.room("total", sum(total.objects.values()))
    if by is None:
        return [last]
    if by == "commit":
        return [*_in_turn(commits), last]
    groups = _branches(repository, revisions, commits) if by == "branch" else _parts(finest)
    return [*_side_by_side(groups), last]


def _commits(walk: Sequence[Step], manifests: Manifests, split: Split) -> dict[str, Parts]:
    """For each commit the versions that it has and its first parent has not, in parts by name."""
    found: dict[str, Parts] = {}
    seen: dict[tuple[str, str], Parts] = {}
    for step in walk:
        parts = found.setdefault(step.commit, {})
        for path, oid in step.files:
            manifest = manifests.get(oid) if oid else None
            if oid is None or manifest is None:
                continue
            if (path, oid) not in seen:
                seen[path, oid] = split(path, manifest)
            for name, group in seen[path, oid].items():
                parts.setdefault(name, _Group()).merge(group)
    return found


def _whole(path: str, manifest: Manifest) -> Parts:
    group = _Group()
    group.files[path, manifest.digest] = manifest.size
    group.blobs = {blob.digest: blob.size for blob in manifest.blobs()}
    group.objects = {blob.digest: blob.size for blob in manifest.needs()}
    return {path: group}


def _parameters(path: str, manifest: Manifest) -> Parts:
    """One group for each parameter. A small blob counts by itself, since its pack is shared; what belongs to no
    parameter (layouts, chunks) and the bases of deltas are in the total alone."""
    lines = {stored.rest[0]: stored for stored in manifest.objects if stored.encoded}
    groups: Parts = {}
    for entry in manifest.entries:
        group = groups.setdefault(entry.name, _Group())
        group.files[path, entry.digest] = entry.tensor.nbytes
        if not entry.view and entry.blob.size:
            line = lines.get(entry.digest)
            group.blobs[entry.digest] = entry.blob.size
            group.objects |= {line.oid: line.size} if line else {entry.digest: entry.blob.size}
    return groups


def _union(commits: Iterable[Parts]) -> _Group:
    total = _Group()
    for parts in commits:
        for group in parts.values():
            total.merge(group)
    return total


def _in_turn(commits: dict[str, Parts]) -> Iterator[Room]:
    """Each commit that adds a version, with what no earlier one has."""
    before: set[Digest] = set()
    for commit, parts in commits.items():
        if parts:
            group = _union([parts])
            yield group.room(commit, sum(size for oid, size in group.objects.items() if oid not in before))
            before |= group.objects.keys()


def _side_by_side(groups: Parts) -> Iterator[Room]:
    """Each group, with what none of the others has."""
    owners = Counter(oid for group in groups.values() for oid in group.objects)
    for name, group in groups.items():
        yield group.room(name, sum(size for oid, size in group.objects.items() if owners[oid] == 1))


def _branches(repository: Repository, revisions: Sequence[str], commits: dict[str, Parts]) -> Parts:
    """The whole history of each revision; of each local branch, if there are none."""
    names = list(revisions) or repository.git.text("for-each-ref", "--format=%(refname:short)", "refs/heads").split()
    listed = {name: repository.git.text("rev-list", "--end-of-options", name).split() for name in names}
    return {name: _union(commits[commit] for commit in reversed(found)) for name, found in listed.items()}


def _parts(commits: dict[str, Parts]) -> Parts:
    names = dict.fromkeys(name for parts in commits.values() for name in parts)
    return {
        name: _union([{name: parts[name]} for parts in commits.values() if name in parts])
        for name in sorted(names, key=order)
    }

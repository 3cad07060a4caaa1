"""Heads: the commits that are merged, and what each of them has of a model file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import ThetaError
from ..git import BlobReader, Git
from ..manifest import Manifest, loads
from ..repository import Repository, read_manifest


@dataclass(frozen=True, slots=True)
class Head:
    """One of the commits that are merged, under the name that the user gave it."""

    commit: str
    name: str


@dataclass(frozen=True, slots=True)
class Side:
    """What one head has of a file: its manifest, as the blob of that name."""

    head: Head
    oid: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Place:
    """Where a commit has a blob."""

    path: str
    oid: str


@dataclass(frozen=True, slots=True)
class Trees:
    """The model files of several commits, read through one process."""

    git: Git
    blobs: BlobReader

    def manifest(self, oid: str) -> Manifest | None:
        """The manifest that a blob holds; None if it holds anything else. Raises ``ManifestError`` if it is broken."""
        text = read_manifest(self.blobs, oid)
        return None if text is None else loads(text)

    def entry(self, commit: str, path: str) -> str | None:
        """The blob of a path in a commit; None if there is none."""
        rows = self.git.fields("ls-tree", "-z", "--full-tree", commit, "--", f":(literal){path}")
        meta = rows[0].partition("\t")[0].split() if rows else []
        return meta[2] if len(meta) == 3 and meta[1] == "blob" else None

    def changed(self, before: str, after: str) -> Iterator[tuple[Place, bytes]]:
        """What claims to be a manifest in one tree or commit and is another blob, or none, in the one before."""
        fields = self.git.fields("diff-tree", "-r", "-z", "--no-renames", f"{before}^{{tree}}", f"{after}^{{tree}}")
        for meta, path in zip(fields[::2], fields[1::2], strict=True):
            oid = meta.split(" ")[3]
            text = read_manifest(self.blobs, oid) if oid.strip("0") else None
            if text is not None:
                yield Place(path, oid), text

    def find(self, commit: str, path: str, known: Iterable[str] = ()) -> Place | None:
        """The blob that a commit has at ``path``, or where else one of the ``known`` blobs stands in it."""
        if oid := self.entry(commit, path):
            return Place(path, oid)
        wanted = set(known)
        if not wanted:
            return None
        rows = (row.partition("\t") for row in self.git.fields("ls-tree", "-r", "-z", "--full-tree", commit))
        found = (Place(name, meta.split()[2]) for meta, _, name in rows)
        return next((place for place in found if place.oid in wanted), None)

    def before(self, base: str | None, heads: Iterable[Head], path: str, known: Iterable[str] = ()) -> str | None:
        """The blob that the file was at ``base``: at ``path``, or where a head still has one of the ``known`` blobs."""
        if base is None or (oid := self.entry(base, path)):
            return oid if base else None
        wanted = list(known)
        places = (self.find(head.commit, path, wanted) for head in heads)
        names = dict.fromkeys(place.path for place in places if place and place.path != path)
        return next((oid for name in names if (oid := self.entry(base, name))), None)

    def models(self, commit: str) -> dict[str, str]:
        """All model files of a commit: path and blob."""
        rows = (row.partition("\t") for row in self.git.fields("ls-tree", "-r", "-z", "--full-tree", commit))
        entries = [(path, meta.split()) for meta, _, path in rows]
        return {
            path: words[2]
            for path, words in entries
            if words[1] == "blob" and words[0] != "120000" and read_manifest(self.blobs, words[2]) is not None
        }

    def sides(self, heads: Sequence[Head], base: str | None, path: str, known: Iterable[str] = ()) -> list[Side]:
        """What each head has of the file, but for those that left it as it was at ``base``: they are no experts of it.

        If all left it so, or there is no base, all are there. Raises ``ManifestError`` for a broken manifest.
        """
        wanted = list(known)
        before = self.before(base, heads, path, wanted)
        sides = []
        for head in heads:
            place = self.find(head.commit, path, wanted)
            if place and (manifest := self.manifest(place.oid)):
                sides.append(Side(head, place.oid, manifest))
        changed = [side for side in sides if side.oid != before]
        return changed or sides


class Merge:
    """The heads of one merge, ``HEAD`` first, and the best common ancestor that git names first, if there is one."""

    def __init__(self, repository: Repository, remotes: Sequence[Head], bases: Sequence[str]) -> None:
        self._git = repository.git
        self.ours = Head(self._git.text("rev-parse", "HEAD"), self._branch())
        self.remotes = list(remotes)
        self.base = bases[0] if bases else None
        self.forked = len(bases) > 1  # git names several, and takes none of them

    def _branch(self) -> str:
        name = self._git.run("symbolic-ref", "--quiet", "--short", "HEAD", check=False).stdout.decode().strip()
        return name or "HEAD"

    @cached_property
    def experts(self) -> list[Head]:
        """The heads that count: HEAD does if it is no ancestor of another one, which has all that it has, and if a
        model is another there than at the common ancestor."""
        for head in self.remotes:
            if self._git.contains(head.commit, self.ours.commit):
                return self.remotes
        return [self.ours, *self.remotes] if self._trained() else self.remotes

    def _trained(self) -> bool:
        return self.base is None or changes_a_model(self._git, self.base, self.ours.commit)


def changes_a_model(git: Git, before: str, after: str) -> bool:
    """Whether a commit has a model that another has not; text that is tracked has no parameters, and is none."""
    with git.blobs() as blobs:
        return any(loads(text).entries for _, text in Trees(git, blobs).changed(before, after))


def common_ancestor(git: Git, heads: Sequence[str]) -> str | None:
    """The best common ancestor of all heads that git names first."""
    option = ["--octopus"] if len(heads) > 2 else ["--all"]
    found = git.run("merge-base", *option, *heads, check=False).stdout.decode().split()
    return found[0] if found else None


def commit_of(git: Git, revision: str) -> str:
    """The commit that a revision names. Raises ``ThetaError`` if there is none."""
    found = git.oid(f"{revision}^{{commit}}")
    if not found:
        raise ThetaError(f"there is no commit {revision!r}")
    return found

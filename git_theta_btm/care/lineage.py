"""Lineage: which tensors each tensor may have come from, read off the history of the files that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..git import Git
from ..manifest import Digest, Entry, Manifest
from ..repository import ModelFile, Repository
from .versions import Manifests, Step, steps

_KEPT = ("--all", "--reflog")
_INDEX = "index"  # stands for a commit that is yet to be made of what is staged

Files = Mapping[str, str]  # blob by path


@dataclass(frozen=True, slots=True)
class Descent:
    """A tensor where it first stands in the history of ``path``, and the tensors of the same name, type and size that
    stood there before it: in the parents, then in their merge base, then in the oldest version. ``wanted`` if it
    belongs to a version that was asked for."""

    path: str
    entry: Entry
    bases: tuple[Digest, ...]
    wanted: bool


@dataclass(frozen=True, slots=True)
class Lineage:
    """The manifests of a history, those in the index first and then the newest first, and each tensor's descent,
    the oldest first."""

    manifests: tuple[Manifest, ...]
    descents: tuple[Descent, ...]


def lineage(repository: Repository, models: Sequence[ModelFile], *, everything: bool, narrow: bool) -> Lineage:
    """The history of HEAD and index, in which the staged tensors of ``models`` and the bases of these are wanted.

    With ``everything`` it is that of all commits git keeps, and every tensor is wanted, or with ``narrow`` those at the
    paths of ``models``. Raises ``ThetaError`` if git cannot list its commits.
    """
    head = repository.git.oid("HEAD")
    scope = _KEPT if everything else (head,) if head and models else ()
    walk = steps(repository, scope) if scope else []
    staged = tuple((model.path, model.oid) for model in models if model.text is not None)
    walk.append(Step(_INDEX, (head,) if head else (), staged))
    with repository.git.blobs() as reader:
        manifests = Manifests(reader)
        visits = list(_visits(walk, repository.git))
        index = [manifest for _, oid in staged if (manifest := manifests.get(oid))]
        oids = dict.fromkeys(visit.oid for visit in reversed(visits))
        known = (*index, *(manifest for oid in oids if (manifest := manifests.get(oid))))
        needed: set[Digest] = set().union(*map(_closure, index))
        paths = {model.path for model in models}

        def wanted(path: str, digest: Digest) -> bool:
            return (path in paths or not narrow) if everything else digest in needed

        return Lineage(known, tuple(_descents(visits, manifests, wanted)))


@dataclass(frozen=True, slots=True)
class _Visit:
    """A version of a path, and the versions that it may have come from."""

    path: str
    oid: str
    before: tuple[str, ...] = field(default=())


def _visits(walk: Sequence[Step], git: Git) -> Iterator[_Visit]:
    """Each version of each path where it came about, parents before children."""
    state: dict[str, Files] = {}
    oldest: dict[str, str] = {}
    for step in walk:
        before = [state.get(parent, {}) for parent in step.parents]
        state[step.commit] = _changed(before[0] if before else {}, step)
        if len(step.parents) > 1 and step.files:
            common = git.run("merge-base", "--octopus", *step.parents, check=False).stdout.decode().strip()
            before.append(state.get(common, {}))
        for path, oid in step.files:
            if oid is not None:
                origins = [*(files[path] for files in before if path in files), oldest.setdefault(path, oid)]
                yield _Visit(path, oid, tuple(dict.fromkeys(origin for origin in origins if origin != oid)))


def _changed(files: Files, step: Step) -> Files:
    if not step.files:
        return files
    return {path: oid for path, oid in {**files, **dict(step.files)}.items() if oid is not None}


def _closure(manifest: Manifest) -> set[Digest]:
    """What the parameters of a version are, what that is stored in terms of, and so on."""
    bases = {stored.rest[0]: stored.rest[1:] for stored in manifest.objects if stored.encoded}
    found: set[Digest] = set()
    waiting = [entry.digest for entry in manifest.entries]
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found.add(digest)
            waiting += map(Digest, bases.get(digest, ()))
    return found


def _descents(
    visits: Sequence[_Visit], manifests: Manifests, wanted: Callable[[str, Digest], bool]
) -> Iterator[Descent]:
    seen: set[Digest] = set()
    for visit in visits:
        manifest = manifests.get(visit.oid)
        new = [entry for entry in manifest.entries if _stands_alone(entry, seen)] if manifest else []
        seen |= {entry.digest for entry in new}
        origins = [_by_name(origin) for oid in visit.before if (origin := manifests.get(oid))] if new else []
        for entry in {entry.digest: entry for entry in new}.values():
            same = (names[entry.name] for names in origins if entry.name in names)
            fits = dict.fromkeys(base.digest for base in same if is_alike(base, entry))
            yield Descent(visit.path, entry, tuple(fits), wanted(visit.path, entry.digest))


def _stands_alone(entry: Entry, seen: set[Digest]) -> bool:
    return not entry.view and not entry.blob.packed and entry.digest not in seen


def _by_name(manifest: Manifest) -> dict[str, Entry]:
    return {entry.name: entry for entry in manifest.entries if not entry.view}


def is_alike(one: Entry, other: Entry) -> bool:
    """Whether one of two different tensors can be a delta of the other."""
    kinds = ((entry.tensor.dtype, entry.tensor.nbytes) for entry in (one, other))
    return len(set(kinds)) == 1 and one.digest != other.digest

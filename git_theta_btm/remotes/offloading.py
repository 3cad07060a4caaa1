"""Offloading: local copies of objects go that no worktree needs now and that a remote is known to have.

A remote is asked about each object, every time; what it may have had yesterday proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ..care.pruning import Keep, Options, Report, alone, every_object, promised, state_of
from ..errors import ThetaError
from ..git import Git
from ..manifest import Blob
from ..repository import Repository, read_manifest
from .transfer import opened, remotes


def offload(repository: Repository, options: Options, sources: Sequence[str] = ()) -> Report:
    """Remove the objects that the indexes and HEADs of all worktrees do without and that one of ``sources`` (remotes;
    all, if there are none) has. The next checkout that needs them fetches them. Young is what git was last given, or
    gave, after ``options.since``: a command that is running may be about to name it.

    Raises ``ThetaError`` if there is no remote, or one cannot be reached.
    """
    git = every_object(repository)
    keep = _needed_now(git)
    known = Keep(git)  # what nobody needs at all is no local copy of anything, and not to be asked about
    known.renew()
    candidates = [
        Blob(oid, state.st_size)
        for oid in repository.store
        if oid in known.names and oid not in keep.names and (state := state_of(repository, oid))
    ]
    spare = _on_a_remote(repository, candidates, sources)
    stored = sum(1 for _ in repository.store)
    removed, young = _removed(repository, git, spare, options) if spare else ([], 0)
    return Report(tuple(removed), stored - len(removed) - young, young)


def _needed_now(git: Git) -> Keep:
    """What the manifests need that the indexes and HEADs of all worktrees name."""
    rows = git.text("worktree", "list", "--porcelain").splitlines()
    heads = [row.removeprefix("HEAD ") for row in rows if row.startswith("HEAD ")]
    revisions = "".join(f"{head}\n" for head in heads if head.strip("0")).encode()
    options = ("--objects", "--no-object-names", "--no-walk", "--indexed-objects", "--stdin")
    keep = Keep(git)
    with git.blobs() as reader:
        oids = git.run("rev-list", *options, stdin=revisions).stdout.decode().split()
        keep.add(filter(None, (read_manifest(reader, oid) for oid in oids)))
    return keep


def _on_a_remote(repository: Repository, candidates: Sequence[Blob], sources: Sequence[str]) -> list[Blob]:
    with opened(repository) as port:
        names = sources or remotes(port.git)
        if not names:
            raise ThetaError("there is no remote that could have a copy")
        missing = {blob.digest for blob in candidates}
        for name in names:
            missing &= port.lfs(name).lacking([blob for blob in candidates if blob.digest in missing])
    return [blob for blob in candidates if blob.digest not in missing]


def _removed(repository: Repository, git: Git, spare: Iterable[Blob], options: Options) -> tuple[list[Blob], int]:
    removed, young = list[Blob](), 0
    with alone(repository) as catalogue:
        keep, late = _needed_now(git), Keep(git)  # it may have changed while the remote was asked
        late.add(promised(catalogue, options.since))
        for blob in spare:
            if blob.digest in keep.names or state_of(repository, blob.digest) is None:
                continue
            if blob.digest in late.names:
                young += 1
                continue
            if not options.dry_run:
                os.unlink(repository.store.path(blob.digest))
            removed.append(blob)
    return removed, young

"""The committed texts: the file of a split, in the worktree or in a commit, read wherever it is stored."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ...api import Checkpoint
from ...errors import ThetaError
from ...manifest import is_manifest, loads
from ...repository import Repository, read_stub
from ...source import BytesSource, FileSource, Source
from ..places import DATA, SPLITS, text

_SUFFIX = ".jsonl"


@contextmanager
def opened(repository: Repository, domain: str, split: str, revision: str | None = None) -> Iterator[Source]:
    """The file of one split of a domain: that of the worktree, or that of a commit, which is not checked out.

    Raises ``ThetaError`` if there is none, ``ObjectError`` if it is stored and not here.
    """
    path = text(domain, split)
    if revision is not None:
        yield _committed(repository, path, revision)
        return
    absolute = repository.absolute(path)
    stub = read_stub(absolute)
    if stub is not None:  # the commit is there, and its file was left in the store
        yield Checkpoint(loads(stub), repository.store).file
    elif os.path.isfile(absolute):
        with open(absolute, "rb", buffering=0) as file:
            yield FileSource(file.fileno())
    else:
        raise ThetaError(
            f"there is no {path}: 'git btm data add {domain} FILE...' adds it, 'git btm data ls' lists all"
        )


def present(repository: Repository, domain: str, split: str) -> bool:
    """Whether the worktree has the file of a split, or what stands for it."""
    return os.path.isfile(repository.absolute(text(domain, split)))


def listed(repository: Repository, revision: str | None = None) -> list[tuple[str, str]]:
    """Every domain and split that the worktree or a commit has a file of, by name. Raises ``ThetaError``."""
    if revision is None:
        pattern = os.path.join(glob.escape(repository.absolute(DATA)), "*", "*" + _SUFFIX)
        paths = [os.path.relpath(path, repository.worktree()) for path in glob.glob(pattern)]
    else:
        paths = repository.git.fields("ls-tree", "-r", "-z", "--full-tree", "--name-only", revision, "--", f"{DATA}/")
    rows = [path.removesuffix(_SUFFIX).split("/") for path in paths if path.endswith(_SUFFIX)]
    order = {split: number for number, split in enumerate(SPLITS)}
    found = [(row[1], row[2]) for row in rows if len(row) == 3]
    return sorted(found, key=lambda item: (item[0], order.get(item[1], len(order)), item[1]))


def _committed(repository: Repository, path: str, revision: str) -> Source:
    oid = repository.git.oid(f"{revision}:{path}")
    if not oid:
        raise ThetaError(f"there is no {path} in {revision}: 'git ls-tree -r --name-only {revision} {DATA}' lists all")
    found = repository.git.blob(oid)
    return Checkpoint(loads(found), repository.store).file if is_manifest(found) else BytesSource(found)

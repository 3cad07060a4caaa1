"""The committed texts: the file of a split, in the worktree or in a commit, read wherever it is stored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ...api import Checkpoint
from ...errors import ThetaError
from ...manifest import is_manifest, loads
from ...repository import Repository, read_stub
from ...source import BytesSource, FileSource, Source
from ..places import DATA, text


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
            f"there is no {path}: 'git btm data add {domain} FILE...' makes it, 'git btm data ls' lists all"
        )


def _committed(repository: Repository, path: str, revision: str) -> Source:
    name = f"{revision}:{path}"
    answer = repository.git.run("rev-parse", "--verify", "--quiet", "--end-of-options", name, check=False)
    if answer.returncode:
        raise ThetaError(f"there is no {path} in {revision}: 'git ls-tree -r --name-only {revision} {DATA}' lists all")
    found = repository.git.blob(answer.stdout.decode().strip())
    return Checkpoint(loads(found), repository.store).file if is_manifest(found) else BytesSource(found)

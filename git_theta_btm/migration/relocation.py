"""Relocation: many refs change in one step, with the worktrees that stand on them, and can be put back.

Nothing moves unless every worktree is as its index says, and every ref is where it was when the work began.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ThetaError
from ..git import Git
from ..repository import Repository
from ..setup.attributes import FILE

_ORIGINAL, _MIGRATED = "refs/theta/original/", "refs/theta/migrated/"
_REASON = "theta: migrated"


@dataclass(frozen=True, slots=True)
class Move:
    """A ref, and the objects that it points to before and after."""

    ref: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class _Worktree:
    git: Git
    head: str
    detached: bool


def check_worktrees(repository: Repository) -> None:
    """Raise ``ThetaError`` if a worktree has changes, or a file that would be in the way."""
    for worktree in _worktrees(repository):
        git = worktree.git
        if git.run("status", "--porcelain", "--untracked-files=no", "--ignore-submodules").stdout:
            raise ThetaError(f"{git.directory} has changes: commit or stash them first")
        tracked = git.run("ls-files", "--error-unmatch", "--", FILE, check=False).returncode == 0
        if os.path.lexists(os.path.join(git.directory, FILE)) and not tracked:
            raise ThetaError(f"{os.path.join(git.directory, FILE)} is not committed: commit or move it first")


def relocate(repository: Repository, moves: Sequence[Move], renamed: Mapping[str, str]) -> None:
    """Move refs, and detached HEADs from a commit to what it is ``renamed`` to, keeping the old refs as a backup.

    Raises ``ThetaError`` with nothing moved if a ref is no longer where it was.
    """
    number = _last(repository.git) + 1
    lines = []
    for move in moves:
        name = f"{number}/{move.ref.removeprefix('refs/')}"
        lines += [_update(move.ref, move.new, move.old)]
        lines += [_create(_ORIGINAL + name, move.old), _create(_MIGRATED + name, move.new)]

    def follow(worktree: _Worktree) -> None:
        if worktree.detached and (new := renamed.get(worktree.head)):
            worktree.git.run("update-ref", "-m", _REASON, "--no-deref", "HEAD", new, worktree.head)

    _commit(repository, lines, follow)


def restore(repository: Repository, *, dry_run: bool = False) -> list[str]:
    """Put the refs of the last ``relocate`` back (unless ``dry_run``), and return them. Raises ``ThetaError`` if one
    has moved since."""
    check_worktrees(repository)
    number = _last(repository.git)
    old, new = (_backup(repository.git, f"{root}{number}/") for root in (_ORIGINAL, _MIGRATED))
    if not old:
        raise ThetaError("there is no migration to undo")
    if dry_run:
        lines = [os.fsencode(f"verify refs/{name}\0{oid}\0") for name, oid in new.items()]
        repository.git.run("update-ref", "--stdin", "-z", stdin=b"".join(lines))
    else:
        lines = [_update(f"refs/{name}", oid, new[name]) for name, oid in old.items()]
        lines += _deletions(repository.git, f"{_ORIGINAL}{number}/", f"{_MIGRATED}{number}/")
        _commit(repository, lines, lambda _: None)
    return [f"refs/{name}" for name in old]


def forget(repository: Repository, *, dry_run: bool = False) -> list[str]:
    """Delete all backups (unless ``dry_run``), so that git can let the old history go, and return their names."""
    names = [_ORIGINAL + name for name in _backup(repository.git, _ORIGINAL)]
    if not dry_run:
        lines = _deletions(repository.git, _ORIGINAL, _MIGRATED)
        repository.git.run("update-ref", "--stdin", "-z", stdin=b"".join(lines))
    return names


def _commit(repository: Repository, lines: Iterable[bytes], follow: Callable[[_Worktree], None]) -> None:
    """Change the refs, then the worktrees whose HEAD is another commit now."""
    worktrees = _worktrees(repository)
    repository.git.run("update-ref", "-m", _REASON, "--stdin", "-z", stdin=b"".join(lines))
    for worktree in worktrees:
        follow(worktree)
        if worktree.git.oid("HEAD") != worktree.head:
            worktree.git.run("reset", "--quiet", "--hard")


def _worktrees(repository: Repository) -> list[_Worktree]:
    """All worktrees that are there, with the names of their HEADs."""
    found: list[_Worktree] = []
    record: dict[str, str] = {}
    for field in [*repository.git.fields("worktree", "list", "--porcelain", "-z"), ""]:
        word, _, value = field.partition(" ")
        if word:
            record[word] = value
        elif record:
            if "bare" not in record and os.path.isdir(record["worktree"]):
                here = record["worktree"] == repository.root
                git = repository.git if here else Git.elsewhere(record["worktree"])
                found.append(_Worktree(git, record.get("HEAD", ""), "detached" in record))
            record = {}
    return found


# -- refs ------------------------------------------------------------------------------------------------------------


def _last(git: Git) -> int:
    numbers = [int(name.partition("/")[0]) for name in _backup(git, _ORIGINAL) if name.partition("/")[0].isdecimal()]
    return max(numbers, default=0)


def _backup(git: Git, root: str) -> dict[str, str]:
    """Objects by the names of refs below ``root``."""
    rows = git.text("for-each-ref", "--format=%(objectname) %(refname)", root.rstrip("/")).splitlines()
    return {name.removeprefix(root): oid for oid, _, name in (row.partition(" ") for row in rows)}


def _update(ref: str, new: str, old: str) -> bytes:
    return os.fsencode(f"update {ref}\0{new}\0{old}\0")


def _create(ref: str, new: str) -> bytes:
    return os.fsencode(f"create {ref}\0{new}\0")


def _deletions(git: Git, *roots: str) -> list[bytes]:
    return [os.fsencode(f"delete {root}{name}\0\0") for root in roots for name in _backup(git, root)]

"""Workplaces: a linked worktree for each training, so that no checkout in the user's tree can disturb one.

It stands in the Git directory and lasts as long as the training. It has the branch checked out, which keeps git from
letting somebody else do so, unless somebody already has: then its HEAD is detached. Models and text are stubs in it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import rmtree

from ...checkout.switching import SKIP
from ...errors import ThetaError
from ...repository import Repository
from .. import places
from .committing import NO_HOOKS, PLAIN, commit_of, holder


def name(ref: str) -> str:
    """What the folders of a training are called: a branch by its name, anything else by its whole ref."""
    return ref.removeprefix("refs/heads/")


def run_folder(repository: Repository, ref: str) -> str:
    """Where a training keeps what is not committed yet."""
    return places.private(repository.common, "runs", name(ref))


def path(repository: Repository, ref: str) -> str:
    """Where the worktree of a training stands."""
    return places.private(repository.common, "worktrees", name(ref))


@contextmanager
def alone(repository: Repository, ref: str) -> Iterator[str]:
    """The folder of a run, which nobody else has until the end. Raises ``ThetaError`` if somebody has it."""
    folder = run_folder(repository, ref)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ThetaError(f"{name(ref)} is being trained by another process") from None
        yield folder


@contextmanager
def workplace(repository: Repository, ref: str) -> Iterator[str]:
    """The worktree of a training; what an earlier one was killed in is taken away first."""
    place = path(repository, ref)
    remove(repository, ref)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    there = commit_of(repository.git, ref)
    branch = bool(there) and ref.startswith("refs/heads/") and not holder(repository.git, ref)
    options = ["--force", "--quiet"] if branch else ["--force", "--quiet", "--detach"]
    git = repository.git.with_environment(**{SKIP: "1"})
    git.run(*NO_HOOKS, *PLAIN, "worktree", "add", *options, place, name(ref) if branch else there or "HEAD")
    try:
        yield place
    finally:
        remove(repository, ref)


def remove(repository: Repository, ref: str) -> None:
    """Take the worktree of a training away, if there is one."""
    place = path(repository, ref)
    if os.path.lexists(place):
        repository.git.run("worktree", "remove", "--force", "--force", place, check=False)
        rmtree(place, ignore_errors=True)
    repository.git.run("worktree", "prune")

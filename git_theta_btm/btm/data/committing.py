"""What a change of the data leaves behind: whole files, a list of domains, and a commit of these alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...repository import Repository
from .. import settings
from ..places import SETTINGS


def replace(path: str, pieces: Iterable[bytes]) -> None:
    """Write a file that is there whole or as it was, and make its folder if there is none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.writelines(pieces)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def enlist(repository: Repository, domains: Iterable[str]) -> list[str]:
    """Add domains to ``btm.toml``, those that are not there yet; returns these."""
    root = repository.worktree()
    before = settings.load(root).domains
    fresh = [name for name in dict.fromkeys(domains) if name not in before]
    if fresh:
        settings.write(root, {"domains": [*before, *fresh]})
    return fresh


def delist(repository: Repository, domain: str) -> bool:
    """Take a domain out of ``btm.toml``; returns whether it was there."""
    root = repository.worktree()
    before = settings.load(root).domains
    if domain in before:
        settings.write(root, {"domains": [name for name in before if name != domain]})
    return domain in before


@dataclass(frozen=True, slots=True)
class Change:
    """Files that are there, and folders that are not any more, by their paths from the root of the worktree."""

    paths: Sequence[str] = ()
    gone: Sequence[str] = ()


def keep(repository: Repository, change: Change, message: str, *, commit: bool) -> bool:
    """Stage a change and ``btm.toml``; commit these alone, if told to and if anything changed.

    Returns whether there is a commit. Raises ``ThetaError`` with git's own words, as in the middle of a merge.
    """
    repository.git.run("add", "--", SETTINGS, *change.paths)
    names = (SETTINGS, *change.paths, *change.gone)
    if not commit or repository.git.run("diff", "--cached", "--quiet", "--", *names, check=False).returncode == 0:
        return False
    repository.git.run("commit", "--quiet", f"--message={message}", "--only", "--", *names)
    return True

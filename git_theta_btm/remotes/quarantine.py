"""A quarantine: git objects and settings that one command of git-lfs needs, and that nobody needs afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from ..git import Git


@contextmanager
def quarantine(git: Git) -> Iterator[Git]:
    """git with an object database of its own in front of the repository's; what is written is gone at the end."""
    objects = os.path.abspath(os.path.join(git.directory, git.text("rev-parse", "--git-path", "objects")))
    present = (git.environment or os.environ).get("GIT_ALTERNATE_OBJECT_DIRECTORIES")
    with TemporaryDirectory(prefix="git-theta-") as directory:
        os.mkdir(os.path.join(directory, "pack"))
        alternates = os.pathsep.join([_spelled(objects), *([present] if present else [])])
        places = {"GIT_OBJECT_DIRECTORY": directory, "GIT_ALTERNATE_OBJECT_DIRECTORIES": alternates}
        # What is written need not reach the disk; git-config(1), core.fsync.
        yield for_a_moment(git.with_environment(**places), {"core.fsync": "none"})


def for_a_moment(git: Git, settings: Mapping[str, str]) -> Git:
    """git with more settings, beside those that its environment has already; git-config(1), GIT_CONFIG_COUNT."""
    start = int((git.environment or os.environ).get("GIT_CONFIG_COUNT") or 0)
    more = {"GIT_CONFIG_COUNT": str(start + len(settings))}
    for number, (key, value) in enumerate(settings.items(), start):
        more |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return git.with_environment(**more)


def _spelled(path: str) -> str:
    """A path as an element of a list of alternates; git(1), GIT_ALTERNATE_OBJECT_DIRECTORIES."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'

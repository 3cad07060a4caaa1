"""A quarantine: git objects that one command of git-lfs needs to see, and that nobody needs afterwards."""

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
        yield git.with_environment(**places, **_for_a_moment(git.environment or os.environ))


def _for_a_moment(environment: Mapping[str, str]) -> dict[str, str]:
    """One more setting for git: what it writes need not reach the disk; git-config(1), core.fsync."""
    count = int(environment.get("GIT_CONFIG_COUNT") or 0)
    return {
        "GIT_CONFIG_COUNT": str(count + 1),
        f"GIT_CONFIG_KEY_{count}": "core.fsync",
        f"GIT_CONFIG_VALUE_{count}": "none",
    }


def _spelled(path: str) -> str:
    """A path as an element of a list of alternates; git(1), GIT_ALTERNATE_OBJECT_DIRECTORIES."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'

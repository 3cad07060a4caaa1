"""Which command of git runs the merge driver, which is told nothing of it."""

from __future__ import annotations

import os

_MERGES = {"merge", "pull", "merge-tree", "merge-recursive", "merge-ort", "merge-subtree"}
_PICKS = {"cherry-pick", "revert", "rebase", "stash", "am", "checkout", "switch", "restore", "read-tree"}
_GENERATIONS = 6  # a driver, the shell that git runs it by, git, and the git or the shell script that ran that


def merges() -> bool:
    """Whether this is a merge of branches, and not a change that is applied to one of them.

    ``git merge`` tells its children the names of the heads, others do not. Where the names of processes cannot be had,
    that alone decides.
    """
    if any(name.startswith("GITHEAD_") for name in os.environ):
        return True
    return _command(os.getppid()) in _MERGES


def _command(pid: int) -> str:
    """The first command of git's among the ancestors of this process that says what is going on."""
    try:
        for _ in range(_GENERATIONS):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = os.fsdecode(file.read()).split("\0")
            if os.path.basename(words[0]).startswith("git"):
                found = next((word for word in [_tail(words[0]), *words[1:]] if word in _MERGES | _PICKS), "")
                if found:
                    return found
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return ""


def _tail(program: str) -> str:
    """``rebase`` for a program named ``git-rebase``."""
    return os.path.basename(program).removeprefix("git-")

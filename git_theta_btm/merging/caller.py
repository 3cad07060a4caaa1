"""Which command of git runs the merge driver, which is told nothing of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from ..errors import ThetaError
from ..gitdir import git_directory

_MERGES = {"merge", "pull", "merge-tree", "merge-recursive", "merge-ort", "merge-subtree"}
_PICKS = {"cherry-pick", "revert", "rebase", "stash", "am", "checkout", "switch", "restore", "read-tree"}
_AGAIN = {"checkout", "restore"}  # of a path that is in conflict
_VALUED = {"-c", "-C", "--git-dir", "--work-tree", "--namespace", "--exec-path", "--config-env", "--super-prefix"}
_GENERATIONS = 6  # a driver, the shell that git runs it by, git, and the git or the shell script that ran that


def merges() -> bool:
    """Whether this is a merge of branches, and not a change that is applied to one of them.

    Where the names of processes cannot be had it is one if git has told its children the names of heads, as only
    ``git merge`` does. But it tells them to the ``git stash`` of ``--autostash`` as well.
    """
    command = _command(os.getppid())
    if command == "rebase":
        return bool(repeated()[1])
    if command in _AGAIN:
        return _exists("MERGE_HEAD")
    return command in _MERGES if command else any(name.startswith("GITHEAD_") for name in os.environ)


def _command(pid: int) -> str:
    """The first command of git's among the ancestors of this process that says what is going on."""
    try:
        for _ in range(_GENERATIONS):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = os.fsdecode(file.read()).split("\0")
            if (found := command_of(words)) in _MERGES | _PICKS:
                return found
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return ""


def command_of(words: Sequence[str]) -> str:
    """``rebase`` for ``git -C somewhere rebase``, and for a program named ``git-rebase``; empty for others."""
    program = os.path.basename(words[0]) if words else ""
    if program.startswith("git-"):
        return program.removeprefix("git-")
    if program != "git":
        return ""
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            return word
        if word in _VALUED:
            next(rest, "")
    return ""


def repeated() -> tuple[str, str]:
    """The merge that a rebase is about to repeat: the commit that it was first, if it was one, and the label of what is
    merged now; both empty in any other step. It does that, with ``--rebase-merges``, in its own process."""
    verb, *words = _last_step().partition(" # ")[0].split() or [""]
    if verb not in ("merge", "m"):
        return "", ""
    first = words[1] if words[0:1] in (["-C"], ["-c"]) and len(words) > 1 else ""
    labels = words[2:] if first else words
    return first, labels[0] if labels else ""


def _last_step() -> str:
    with suppress(ThetaError, OSError):
        name = os.path.join(git_directory(), "rebase-merge", "done")
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            return (file.read().rstrip().splitlines() or [""])[-1]
    return ""


def _exists(name: str) -> bool:
    with suppress(ThetaError):
        return os.path.exists(os.path.join(git_directory(), name))
    return False

"""What the surroundings say, found without running git: a filter is started for every ``git status``."""

from __future__ import annotations

import os

from .errors import ThetaError


def git_directory(start: str = ".") -> str:
    """The Git directory of the worktree or bare repository at or above ``start``. Raises ``ThetaError``."""
    if given := os.environ.get("GIT_DIR"):
        return os.path.abspath(given)
    directory = os.path.abspath(start)
    while True:
        candidate = os.path.join(directory, ".git")
        if os.path.isdir(candidate):
            return candidate
        if os.path.isfile(candidate):
            return _follow(candidate)
        if all(os.path.exists(os.path.join(directory, name)) for name in ("HEAD", "objects", "refs")):
            return directory
        parent = os.path.dirname(directory)
        if parent == directory:
            raise ThetaError("not in a git repository")
        directory = parent


def _follow(file: str) -> str:
    """The directory that a ``.git`` file of a linked worktree or submodule names."""
    with open(file, encoding="utf-8", errors="surrogateescape") as text:
        target = text.read().strip().removeprefix("gitdir: ")
    return os.path.normpath(os.path.join(os.path.dirname(file), target))


def common_directory(start: str = ".") -> str:
    """The directory that all worktrees of the repository share. Raises ``ThetaError``."""
    if given := os.environ.get("GIT_COMMON_DIR"):
        return os.path.abspath(given)
    directory = git_directory(start)
    try:
        with open(os.path.join(directory, "commondir"), encoding="utf-8", errors="surrogateescape") as text:
            return os.path.normpath(os.path.join(directory, text.read().strip()))
    except FileNotFoundError:
        return directory


def is_set(variable: str) -> bool:
    """An environment variable as git reads a boolean."""
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no", "off")

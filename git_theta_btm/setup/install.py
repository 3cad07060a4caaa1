"""Git's configuration for the filters: written, and taken back, by ``git config`` alone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from contextlib import suppress
from typing import Literal

from ..errors import ThetaError
from ..git import Git
from ..merging.program import PLACES, command
from ..remotes import hooks

Scope = Literal["local", "global", "system", "worktree"]

OLDEST_GIT = (2, 26)  # git config --show-scope; all else that is used is older
PROGRAM = "git-theta-filter"
_ARGUMENTS = {
    "filter.theta.clean": (["clean", "--", "%f"],),
    "filter.theta.smudge": (["smudge", "--", "%f"], ["smudge", "--skip", "--", "%f"]),
}
_DRIVER = "merge.theta.driver"
_CONSTANT = {
    "filter.theta.required": "true",  # else git would commit the file itself when clean fails
    "merge.theta.name": "merge models parameter by parameter",
    # The common ancestor of a criss-cross merge is one that there was, and not a mixture of two.
    "merge.theta.recursive": "binary",
    # For files of which a merge keeps ours, such as the state of an optimizer: merge=theta-ours.
    "merge.theta-ours.name": "keep our side",
    "merge.theta-ours.driver": "true",
}
KEYS = (*_ARGUMENTS, *_CONSTANT, _DRIVER)
_SECTIONS = ("filter.theta", "merge.theta", "merge.theta-ours")


def settings(*, skip_smudge: bool = False) -> dict[str, str]:
    """What ``install`` writes. Raises ``ThetaError`` if the filter program cannot be found."""
    # By its full path: editors and cron have no virtual environment on their PATH. git expands % in it.
    program = shlex.quote(_program()).replace("%", "%%")
    skip = "--skip " if skip_smudge else ""
    return {
        "filter.theta.clean": f"{program} clean -- %f",
        "filter.theta.smudge": f"{program} smudge {skip}-- %f",
        **_CONSTANT,
        _DRIVER: command("auto"),
    }


def _program() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), PROGRAM)
    found = beside if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if not found:
        raise ThetaError(f"{PROGRAM} is neither beside {sys.executable} nor on PATH: install git-theta-btm again")
    return os.path.abspath(found)


def is_ours(key: str, value: str) -> bool:
    """Whether ``install`` of this or another environment may have written this value."""
    if key in _CONSTANT:
        return value == _CONSTANT[key]
    words = _split(value)
    if key == _DRIVER:  # an earlier version had no driver
        return value == "false" or words[1:] == ["auto", *PLACES.split()]
    return words[1:] in _ARGUMENTS[key] and os.path.basename(words[0]) == PROGRAM


def is_runnable(value: str) -> bool:
    """Whether the program of a filter's command line is there."""
    words = _split(value)
    return bool(words) and shutil.which(words[0].replace("%%", "%")) is not None


def _split(value: str) -> list[str]:
    with suppress(ValueError):  # quotes that do not close
        return shlex.split(value)
    return []


def install(git: Git, scope: Scope, *, skip_smudge: bool = False, force: bool = False) -> list[str]:
    """Write the configuration, and in a repository the hook; what was changed.

    Raises ``ThetaError`` if git is too old, or a key has a value that is not ours and ``force`` is not given.
    """
    check_git(git)
    wanted = settings(skip_smudge=skip_smudge)
    present = {key: _values(git, scope, key) for key in wanted}
    if not force:
        _refuse_foreign(present, "replaces")
    changed = [key for key, value in wanted.items() if present[key] != [value]]
    for key in changed:
        git.run("config", f"--{scope}", "--replace-all", key, wanted[key])
    if scope == "local" and hooks.install(git) in ("missing", "outdated"):
        changed.append(hooks.NAME)
    return changed


def uninstall(git: Git, scope: Scope, *, force: bool = False) -> list[str]:
    """Remove what ``install`` wrote; the keys that were there. A file that holds nothing any more is removed.

    Raises ``ThetaError`` if a key has a value that is not ours and ``force`` is not given.
    """
    present = {key: values for key in KEYS if (values := _values(git, scope, key))}
    if not force:
        _refuse_foreign(present, "removes")
    if scope == "local":
        hooks.uninstall(git)
    file = _origin(git, scope, next(iter(present), ""))
    for section in _SECTIONS:
        keys = [key for key in present if key.rpartition(".")[0] == section]
        if keys and _stands_alone(_text(file), section, len(keys)):
            # To unset its last key would take comments and blank lines before it along, or leave its first line.
            git.run("config", f"--{scope}", "--remove-section", section)
        else:
            for key in keys:
                git.run("config", f"--{scope}", "--unset-all", key)
    if os.path.isfile(file) and not os.path.islink(file) and not os.path.getsize(file):
        os.unlink(file)
    return list(present)


def _stands_alone(text: str, section: str, lines: int) -> bool:
    """Whether a section is one run of that many lines of our keys, with no comment in it or after it."""
    kind, _, name = section.partition(".")
    start = rf'^\[{kind} "{name}"\]\n'
    keys = "|".join(key.rpartition(".")[2] for key in KEYS if key.rpartition(".")[0] == section)
    run = re.search(rf"{start}(?:\t(?:{keys}) = .*\n){{{lines}}}(?=\[|\Z)", text, re.MULTILINE)
    return run is not None and len(re.findall(start, text, re.MULTILINE)) == 1


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def check_git(git: Git) -> None:
    """Raise ``ThetaError`` unless git is new enough."""
    if (version := git.version()) < OLDEST_GIT:
        have, need = (".".join(map(str, numbers)) for numbers in (version, OLDEST_GIT))
        raise ThetaError(f"git {have} is too old: {need} or newer is needed")


def has_lfs(git: Git) -> bool:
    """Whether git-lfs, which will carry the objects between machines, can be run."""
    return git.run("lfs", "version", check=False).returncode == 0


def effective(git: Git) -> dict[str, str]:
    """The value that git uses for each of our keys that is set."""
    found = {key: git.fields("config", "-z", "--get", key, check=False) for key in KEYS}
    return {key: values[0] for key, values in found.items() if values}


def _values(git: Git, scope: Scope, key: str) -> list[str]:
    done = git.run("config", f"--{scope}", "-z", "--get-all", key, check=False)
    if done.returncode > 1:  # 1: the key is not set
        git.run("config", f"--{scope}", "--get-all", key)  # raises with git's own words
    return os.fsdecode(done.stdout).split("\0")[:-1]


def _origin(git: Git, scope: Scope, key: str) -> str:
    """The file that a key of a scope stands in; empty for no key."""
    if not key:
        return ""
    origin = git.fields("config", f"--{scope}", "-z", "--show-origin", "--get-all", key)[0].removeprefix("file:")
    return os.path.join(git.directory, origin)


def _refuse_foreign(present: dict[str, list[str]], verb: str) -> None:
    for key, values in present.items():
        for value in values:
            if not is_ours(key, value):
                raise ThetaError(f"{key} is set to {value!r}, which is not ours: --force {verb} it")

"""What Git is told about merging: its configuration, and the attribute ``theta-merge`` of a path.

git config theta.merge.strategy ties
git config theta.merge.ties.density 0.2         # for that strategy alone, whenever it is chosen
echo '*.safetensors theta-merge=ties' >> .gitattributes
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import UsageError
from ..git import Git
from ..repository import attributes
from .drafts import Draft, layered
from .reading import KEYS, canonical, from_pairs

ATTRIBUTE = "theta-merge"

_PREFIX = "theta.merge."
_PATHS = ("recipe", "prior")


def configured(git: Git) -> list[tuple[str, str]]:
    """All that Git's configuration says about merges, in its order, as keys without ``theta.merge.`` and values.

    Files are relative to git's directory. Raises ``UsageError`` for a key that is none.
    """
    pairs = []
    for field in git.fields("config", "-z", "--get-regexp", r"^theta\.merge\.", check=False):
        name, _, value = field.partition("\n")
        key = canonical(name.removeprefix(_PREFIX))
        if "." not in key and key not in KEYS:
            raise UsageError(f"{name} is no key: an option is set as {_PREFIX}STRATEGY.{key[:40]}")
        if key in _PATHS and value:
            value = os.path.join(git.directory, os.path.expanduser(value))
        pairs.append((key, value))
    return pairs


def attributed(git: Git, path: str) -> Draft:
    """The strategy that the attributes of a path name, if they do. Raises ``UsageError`` for ``-theta-merge``."""
    value = attributes(git, [path], ATTRIBUTE)[path].get(ATTRIBUTE, "unspecified")
    if value in ("unspecified", "set"):
        return Draft()
    if value == "unset":
        raise UsageError(f"{path} is not to be merged: its attribute {ATTRIBUTE} is unset")
    return Draft(strategy=canonical(value))


def mergeable(git: Git, paths: Sequence[str]) -> list[str]:
    """The paths without those that have ``-theta-merge``."""
    found = attributes(git, paths, ATTRIBUTE)
    return [path for path in paths if found[path].get(ATTRIBUTE) != "unset"]


def settings(git: Git, path: str, given: Draft) -> Draft:
    """All places together: Git's configuration, over it the path's attribute, over both what was ``given``."""
    return layered([general(git), attributed(git, path), given])


def general(git: Git) -> Draft:
    """What Git's configuration says of all paths. Raises ``UsageError``."""
    try:
        return from_pairs(configured(git))
    except UsageError as error:
        raise UsageError(f"Git's configuration of merges: {error}") from None

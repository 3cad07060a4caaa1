"""Belonging: whether a record of a merge is of the commit that has it in its message, and where that comes from.

A cherry-pick and a rebase copy messages, and with them the record of a merge that the new commit is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ThetaError
from ..git import Git
from .heads import changes_a_model, commit_of
from .records import Record


def belongs(git: Git, record: Record, commit: str) -> bool:
    """Whether a commit can be what its record says, by its parents: the experts are among them.

    The only parent of one that was squashed is an expert, or where all of them come from, or has the models that they
    started from. Where the history is cut off, that is believed.
    """
    parents = parents_of(git, commit)
    experts = {expert.commit for expert in record.experts}
    if len(parents) != 1:
        return not parents or experts <= set(parents)
    (parent,) = parents
    if parent in experts or all(git.contains(expert, parent) for expert in experts):
        return True
    if _shallow(git):
        return True
    return record.base is not None and _here(git, record.base) and not changes_a_model(git, record.base, parent)


def parents_of(git: Git, commit: str) -> list[str]:
    """The parents that a commit was made with, wherever the history was cut off since."""
    header = git.run("cat-file", "commit", commit_of(git, commit)).stdout.partition(b"\n\n")[0]
    lines = header.decode(errors="replace").split("\n")
    return [line.removeprefix("parent ") for line in lines if line.startswith("parent ")]


def ancestors(git: Git, heads: Sequence[str], record: Record) -> list[str]:
    """The best common ancestors of the heads of a merge that was recorded, as they were when it was made.

    Where the history was cut off then, there was none. Where it is now, it is the base that is recorded, unless another
    than git's was named. Raises ``ThetaError`` if that is not here.
    """
    if len(heads) < 2 or not (record.base or any(record.bases.values())):
        return []
    option = "--octopus" if len(heads) > 2 else "--all"
    found = git.run("merge-base", option, *heads, check=False).stdout.decode().split()
    if found or not record.base or not _shallow(git):
        return found[: 1 if len(heads) > 2 else None]
    if not _here(git, record.base):
        raise ThetaError("where the experts come from is not here: 'git fetch --unshallow' first")
    return [record.base]


def _shallow(git: Git) -> bool:
    """Whether the history is cut off somewhere."""
    return git.text("rev-parse", "--is-shallow-repository") == "true"


def _here(git: Git, commit: str) -> bool:
    return not git.run("cat-file", "-e", f"{commit}^{{commit}}", check=False).returncode

"""Experts: branches whose commits say what was trained on what, and how far."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ThetaError
from ..git import Git

_TRAILER = re.compile(r"^Btm-(Domain|Seed|Step|Tokens|Loss|Layers): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one commit of a training holds. ``step`` counts from the start of the seed; ``tokens`` are those that this
    training has seen, the seed's included; ``loss`` is the mean of the training loss since the last one, in nats."""

    domain: str  # empty for the seed
    step: int
    tokens: int
    seed: str | None = None  # the commit that it was branched from
    loss: float | None = None

    def trailers(self) -> str:
        """The lines that a commit's message ends with."""
        rows = [("Domain", self.domain), ("Seed", self.seed), ("Step", self.step), ("Tokens", self.tokens)]
        rows.append(("Loss", None if self.loss is None else format(self.loss, ".6g")))
        return "".join(f"Btm-{key}: {value}\n" for key, value in rows if value not in (None, ""))


@dataclass(frozen=True, slots=True)
class Expert:
    """A branch, where it is, and its last checkpoint with the commit that holds it."""

    branch: str
    tip: str
    commit: str
    checkpoint: Checkpoint


def parse(message: str) -> Checkpoint | None:
    """The checkpoint that a commit's message tells of; None if it tells of none. Broken numbers tell nothing."""
    found = dict(_TRAILER.findall(message))
    if "Step" not in found:
        return None
    try:
        loss = float(found["Loss"]) if "Loss" in found else None
        return Checkpoint(
            found.get("Domain", ""), int(found["Step"]), int(found.get("Tokens", 0)), found.get("Seed"), loss
        )
    except ValueError:
        return None


def checkpoints(git: Git, revision: str) -> Iterator[tuple[str, Checkpoint]]:
    """The checkpoints of a revision's first parents, the latest first: commit and what it holds."""
    for row in git.fields("log", "-z", "--first-parent", "--format=%H%n%B", revision, "--"):
        commit, _, message = row.partition("\n")
        if found := parse(message):
            yield commit, found


def branches(git: Git, name: str = "") -> Iterator[Expert]:
    """Every branch with a checkpoint, the seed's too, by name; or that of one name, and those below it.

    Most tips are a checkpoint, and one process reads them all.
    """
    form = "--format=%(refname:lstrip=2)%00%(objectname)%00%(contents)%00"
    fields = iter(git.fields("for-each-ref", form, f"refs/heads/{name}".rstrip("/")))
    for ref, tip, message in zip(fields, fields, fields, strict=False):
        branch, found = ref.lstrip("\n"), parse(message)
        if found:
            yield Expert(branch, tip, tip, found)
        elif earlier := next(checkpoints(git, tip), None):
            yield Expert(branch, tip, *earlier)


def experts(git: Git) -> list[Expert]:
    """Every branch whose latest checkpoint is of a domain, by name."""
    return [found for found in branches(git) if found.checkpoint.domain]


def expert(git: Git, name: str) -> Expert:
    """The expert on the branch of this name. Raises ``ThetaError`` if there is none."""
    for found in branches(git, name):
        if found.branch == name and found.checkpoint.domain:
            return found
    raise ThetaError(f"there is no expert {name!r}: 'git btm status' names all, 'git btm branch {name}' makes it")

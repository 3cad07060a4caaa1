"""Records: what the commits of a training say beside what every checkpoint says, as trailers.

Btm-Reset: dataloader,optimizer     in a branch's first commit: what does not go on from the seed
Btm-Balance: equal                  in a seed's commits: how its domains are mixed
Btm-Layers: 9-13,15                 and Btm-Trainable, Btm-Lora, Btm-Lr-Scale: what is trained, and how fast
Btm-Eval: valid=2.31834             the loss of splits that were asked for, in nats a token
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...git import Git
from ..experts import Checkpoint, parse

PARTS = ("dataloader", "optimizer", "lr", "meters")
_LINE = re.compile(r"^Btm-([A-Za-z-]+): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Record:
    """A commit of a training: its checkpoint, and all of its trailers by their names without ``Btm-``."""

    commit: str
    checkpoint: Checkpoint
    trailers: Mapping[str, str] = field(default_factory=dict)

    @property
    def reset(self) -> frozenset[str]:
        """What a branch's first commit says not to go on from."""
        return frozenset(part for part in PARTS if part in self.trailers.get("Reset", "").split(","))


def records(git: Git, revision: str) -> Iterator[Record]:
    """The checkpoints of a revision's first parents, the latest first."""
    for row in git.fields("log", "-z", "--first-parent", "--format=%H%n%B", revision, "--"):
        commit, _, message = row.partition("\n")
        if found := parse(message):
            yield Record(commit, found, dict(_LINE.findall(message)))


def latest(git: Git, revision: str) -> Record | None:
    """The last checkpoint; None if there is none."""
    return next(records(git, revision), None)


def origin(git: Git, revision: str) -> Record | None:
    """The first commit of the expert that a revision is a checkpoint of; None if it is none."""
    return next((record for record in records(git, revision) if "Reset" in record.trailers), None)


def message(title: str, checkpoint: Checkpoint, more: Mapping[str, str] | None = None) -> str:
    """The message of a commit."""
    extra = "".join(f"Btm-{key}: {value}\n" for key, value in (more or {}).items() if value)
    return f"{title}\n\n{checkpoint.trailers()}{extra}"

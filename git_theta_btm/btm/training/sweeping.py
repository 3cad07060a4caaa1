"""Sweeps: short trainings of a few layers each, on refs that are no branches, to see which layers are worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import ThetaError, UsageError
from ...git import Git
from ...manifest import is_manifest, loads
from ...repository import Repository
from .. import places
from ..experts import Checkpoint
from ..settings import Settings
from .branching import DEFAULT, Point, first_commit, seeds
from .committing import Line, commit_of
from .parts import layer
from .records import message
from .requests import Part, Request
from .restoring import blobs

REFS = "refs/btm/sweeps"


def windows(count: int, width: int) -> list[str]:
    """Every run of ``width`` layers among ``count``. Raises ``UsageError`` if there is none."""
    if not 1 <= width <= count:
        raise UsageError(f"the model has {count} layers: a window has at least 1 and at most {count}")
    if width == 1:
        return [str(first) for first in range(count)]
    return [f"{first}-{first + width - 1}" for first in range(count - width + 1)]


def depth(repository: Repository, commit: str) -> int:
    """The layers of a model in a commit."""
    names = []
    for path, oid in blobs(repository, commit, f"{places.MODEL}/").items():
        text = repository.git.blob(oid) if path.endswith(".safetensors") else b""
        names += [entry.name for entry in loads(text).entries] if is_manifest(text) else []
    found = {number for name in names if (number := layer(name)) is not None}
    if not found:
        raise ThetaError(f"the model of {commit[:10]} has no numbered layers")
    return max(found) + 1


def requests(repository: Repository, domain: str, settings: Settings, width: int, steps: int) -> list[Request]:
    """One training for each window, of ``steps`` updates from the seed's last. Their refs are made if they are not
    there."""
    saved = seeds(repository.git)
    seed = saved[Point().nearest(list(saved))]
    start = Checkpoint(domain, seed.checkpoint.step, seed.checkpoint.tokens, seed.commit)
    stop = min(settings.training.steps, start.step + steps)
    training = replace(settings.training, save_every=max(1, steps))
    found = []
    for layers in windows(depth(repository, seed.commit), width):
        line = Line(repository, f"{REFS}/{domain}/{layers}")
        if not commit_of(repository.git, line.ref):
            text = message(f"{domain}: sweep of {layers}", start, {"Reset": ",".join(DEFAULT)})
            first_commit(line, domain, (seed.commit,), text)
        part = Part(layers=layers)
        found.append(
            Request(
                repository.worktree(), line.ref, (domain,), stop, replace(settings, training=training), part=part,
                optimizer=False, eval_splits=("valid",),
            )
        )  # fmt: skip
    return found


def forget(git: Git, domains: Sequence[str]) -> int:
    """Take the refs of sweeps away, and return how many there were."""
    refs = [
        ref
        for domain in domains
        for ref in git.text("for-each-ref", "--format=%(refname)", f"{REFS}/{domain}/").split()
    ]
    for ref in refs:
        git.run("update-ref", "-d", ref)
    return len(refs)

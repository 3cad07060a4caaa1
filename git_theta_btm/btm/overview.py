"""Overview: the seed, its experts, and what is missing, from refs, commits and manifests alone: no weight is read."""

from __future__ import annotations

import fcntl
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ..care.sizes import sizes
from ..errors import ThetaError
from ..git import Git
from ..repository import Repository
from . import places
from .evaluating.results import FETCHED, REF, Cell
from .experts import Checkpoint, branches
from .models import ModelAt
from .settings import load

_LIMIT = 4096  # bytes of a result
_TRAIN = places.SPLITS[0]


@dataclass(frozen=True, slots=True)
class Row:
    """A branch with a model. ``added`` are the bytes of objects that no other branch has; ``perplexity`` is the best
    that is known of its last model, on any text; ``running`` says that a process trains it now."""

    branch: str
    commit: str
    checkpoint: Checkpoint
    added: int = 0
    perplexity: float | None = None
    running: bool = False

    def values(self) -> dict[str, object]:
        """The row as names and values."""
        own = {"branch": self.branch, "commit": self.commit, "added": self.added, "running": self.running}
        known = self.perplexity if self.perplexity is not None and math.isfinite(self.perplexity) else None
        words = ("domain", "step", "tokens", "seed", "loss")
        return own | {"perplexity": known} | {word: getattr(self.checkpoint, word) for word in words}


@dataclass(frozen=True, slots=True)
class Overview:
    """All that there is. ``running`` are trainings whose branch is none of the rows; the rest are the domains of
    ``btm.toml`` without text to train on, and without an expert."""

    seeds: tuple[Row, ...]
    experts: tuple[Row, ...]
    running: tuple[str, ...]
    without_text: tuple[str, ...]
    without_expert: tuple[str, ...]


def overview(repository: Repository) -> Overview:
    """What a repository of experts holds. Raises ``ThetaError`` where there is no ``btm.toml``."""
    domains = load(repository.worktree()).domains
    rows = [Row(found.branch, found.commit, found.checkpoint) for found in branches(repository.git)]
    rooms = {room.name: room.added for room in sizes(repository, by="branch")} if rows else {}
    known = _perplexities(repository, [row.commit for row in rows])
    running = set(_running(places.private(repository.common, "runs")))
    told = [
        replace(row, added=rooms.get(row.branch, 0), perplexity=known.get(row.commit), running=row.branch in running)
        for row in rows
    ]
    experts = tuple(row for row in told if row.checkpoint.domain)
    covered = {row.checkpoint.domain for row in experts}
    return Overview(
        tuple({row.commit: row for row in reversed(told) if not row.checkpoint.domain}.values())[::-1],
        experts,
        tuple(sorted(running - {row.branch for row in told})),
        tuple(_without_text(repository, domains, experts)),
        tuple(domain for domain in domains if domain not in covered),
    )


def _running(folder: str) -> Iterator[str]:
    """The names of the trainings whose lock somebody holds."""
    for at, _, names in os.walk(folder):
        if "lock" in names:
            with open(os.path.join(at, "lock"), "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield os.path.relpath(at, folder)


def _perplexities(repository: Repository, commits: Iterable[str]) -> Mapping[str, float]:
    """The best perplexity that is known of each commit's model."""
    paths = _evaluated(repository.git)
    found: dict[str, float] = {}
    with repository.git.blobs() as blobs:
        for commit in dict.fromkeys(commits) if paths else ():
            with suppress(ThetaError):  # a commit without a model
                model = ModelAt(repository, commit).digest
                for oid, cell in paths.get(model, ()):
                    data = blobs.read(oid, limit=_LIMIT)
                    if data and (score := cell.loads(data)):
                        found[commit] = min(found.get(commit, math.inf), score.perplexity)
    return found


def _evaluated(git: Git) -> Mapping[str, list[tuple[str, Cell]]]:
    """The results that are there, by the digests of their models: git's name of each, and what it is about."""
    found: dict[str, list[tuple[str, Cell]]] = defaultdict(list)
    for tip in git.text("for-each-ref", "--format=%(objectname)", REF, FETCHED).split():
        for row in git.fields("ls-tree", "-r", "-z", "--full-tree", tip, check=False):
            meta, _, path = row.partition("\t")
            parts = path.removesuffix(".json").split("/")
            if len(parts) == 3 and (block := parts[2].rpartition("-")[2]).isdecimal() and len(block) < 10:
                cell = Cell(parts[1], parts[2].rpartition("-")[0], int(block))
                found[cell.model].append((meta.split()[2], cell))
    return found


def _without_text(repository: Repository, domains: Iterable[str], experts: Iterable[Row]) -> Iterator[str]:
    """The domains whose text is neither in the worktree nor on their branch."""
    commits = {row.checkpoint.domain: row.commit for row in experts}
    with repository.git.blobs() as blobs:
        for domain in domains:
            path = places.text(domain, _TRAIN)
            here = os.path.lexists(repository.absolute(path))
            if not here and (domain not in commits or blobs.read(f"{commits[domain]}:{path}", limit=0) is None):
                yield domain

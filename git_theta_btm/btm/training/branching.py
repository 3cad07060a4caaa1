"""Branching: an expert begins as a git branch at a commit of the seed, or at a mixture of other experts.

Its first commit says what it does not go on from; it changes nothing but to bring the domain's text along. So whoever
clones the branch can train on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...errors import ThetaError, UsageError
from ...git import Git
from ...manifest import loads
from ...merging import trailers
from ...merging.filing import Desk, Question
from ...merging.heads import Trees
from ...merging.recipe import Recipe
from ...repository import Repository
from .. import places
from ..adapting import refusal
from ..experts import Checkpoint, Expert, expert
from ..models import ModelAt
from .committing import Content, Line, commit_of
from .records import PARTS, Record, message, origin, records
from .restoring import blobs

DEFAULT = ("dataloader",)  # as Branch-Train-Merge has it: the text restarts, everything else goes on


@dataclass(frozen=True, slots=True)
class Point:
    """Which update of the seed: a share of its last one, the nearest to a number, or the last."""

    share: float | None = None
    update: int | None = None

    def __post_init__(self) -> None:
        if self.share is not None and self.update is not None:
            raise UsageError("a share and an update both say where to branch: give one of them")
        if self.share is not None and not 0 <= self.share <= 1:
            raise UsageError(f"a share is from 0 to 1, not {self.share:g}")

    def nearest(self, steps: Sequence[int]) -> int:
        """The saved update that is meant. Of two as near, a share up to one half takes the earlier, one above it the
        later; a number takes the earlier."""
        last = max(steps)
        if self.share is None and (self.update is None or self.update == -1):
            return last
        target = int(self.share * last) if self.share is not None else int(self.update or 0)
        later = self.share is not None and self.share > 0.5
        return min(steps, key=lambda step: (abs(step - target), -step if later else step))


@dataclass(frozen=True, slots=True)
class Branched:
    """A branch of an expert: its first commit, the update it begins at, and whether it is new."""

    branch: str
    commit: str
    step: int
    new: bool


def parts(text: str) -> tuple[str, ...]:
    """What ``dataloader,optimizer`` names; ``none`` is nothing. Raises ``UsageError``."""
    found = tuple(part for part in text.split(",") if part and part != "none")
    if unknown := [part for part in found if part not in PARTS]:
        raise UsageError(f"{unknown[0]!r} cannot be reset: there are {', '.join(PARTS)}")
    return found


def seeds(git: Git, source: str | None = None) -> dict[int, Record]:
    """The checkpoints of the seed that a revision goes back to, by their updates; of HEAD, or else of any branch.

    Raises ``ThetaError`` if there are none.
    """
    branches = git.text("for-each-ref", "--format=%(refname)", "refs/heads").split()
    for name in [source] if source else ["HEAD", *branches]:
        if not commit_of(git, name):
            if source:
                raise ThetaError(f"there is no revision {source!r}")
            continue
        found = [record for record in records(git, name) if not record.checkpoint.domain]
        if found:
            return {record.checkpoint.step: record for record in reversed(found)}
    raise ThetaError("there is no seed yet: 'git btm seed train' makes one")


def branch(
    repository: Repository, domain: str, point: Point, source: str | None = None, reset: Sequence[str] = DEFAULT
) -> Branched:
    """Have a branch for an expert, at the checkpoint of the seed that is meant. One that is there stays what it is.

    Raises ``ThetaError`` if there is no seed, no text of the domain, or a branch of that name that is no expert.
    """
    if found := existing(repository.git, domain):
        return found
    saved = seeds(repository.git, source)
    seed = saved[point.nearest(list(saved))]
    start = Checkpoint(domain, seed.checkpoint.step, seed.checkpoint.tokens, seed.commit)
    text = message(f"{domain}: branch at step {start.step}", start, {"Reset": ",".join(reset) or "none"})
    commit = first_commit(line(repository, domain), domain, (seed.commit,), text)
    return Branched(domain, commit, start.step, new=True)


def existing(git: Git, domain: str) -> Branched | None:
    """The branch that an expert has already."""
    ref = f"refs/heads/{domain}"
    if git.run("check-ref-format", ref, check=False).returncode or domain[:1] == "-":
        raise UsageError(f"{domain!r} is no name for a branch")
    if not commit_of(git, ref):
        return None
    found = origin(git, ref)
    if not found or found.checkpoint.domain != domain:
        raise ThetaError(f"branch {domain} is there, and is no expert: rename it, 'git branch -m {domain} OTHER'")
    return Branched(domain, found.commit, found.checkpoint.step, new=False)


def line(repository: Repository, domain: str) -> Line:
    """Where the commits of an expert go."""
    return Line(repository, f"refs/heads/{domain}")


def first_commit(to: Line, domain: str, parents: Sequence[str], text: str, content: Content | None = None) -> str:
    """The first commit of an expert, with the domain's text as HEAD has it. Raises ``ThetaError`` if there is none."""
    repository = to.repository
    folder = f"{places.DATA}/{domain}/"
    found = blobs(repository, "HEAD", folder) if commit_of(repository.git, "HEAD") else {}
    if not found and not blobs(repository, parents[0], folder):
        raise ThetaError(f"there is no text of {domain}: 'git btm data add {domain} FILE...', and commit it")
    given = content or Content()
    return to.add(Content(given.files, given.folders, {**given.blobs, **found}), text, parents)


# -- mixtures ----------------------------------------------------------------------------------------------------------


def weights(text: str) -> dict[str, float]:
    """What ``a=.7,b=.3`` says, as shares that sum to 1. Raises ``UsageError``."""
    found: dict[str, float] = {}
    for word in text.split(","):
        name, sign, value = word.rpartition("=")
        with suppress(ValueError):
            found[name] = float(value)
        if not sign or not name or not found.get(name, -1.0) >= 0:
            raise UsageError(f"a mixture is auto, or like legal=.7,code=.3, not {text!r}")
    total = sum(found.values())
    if not 0 < total < float("inf"):
        raise UsageError("the weights of a mixture are numbers, not all 0")
    return {name: value / total for name, value in found.items()}


def from_mixture(repository: Repository, domain: str, mixture: Mapping[str, float]) -> Branched:
    """Have a branch for an expert whose parameters are the weighted mean of other experts'.

    It has as many updates to go as they had: its number is that at which the first of them was branched. Their
    optimizers' moments are not those of the mean, so they are left out.
    """
    git = repository.git
    if found := existing(git, domain):
        return found
    chosen = [(expert(git, name), weight) for name, weight in mixture.items() if weight]
    begun = origin(git, chosen[0][0].tip)
    assert begun
    start = Checkpoint(domain, begun.checkpoint.step, begun.checkpoint.tokens, begun.checkpoint.seed)
    recipe = Recipe("average", weights=tuple(weight for _, weight in chosen))
    tips = [item for item, _ in chosen]
    models, lines = _merged(repository, tips, recipe)
    content = Content(folders=(places.TRAINING, places.ADAPTER), blobs=models)
    text = message(f"{domain}: branch from {', '.join(item.branch for item in tips)}", start)
    text += "Btm-Reset: dataloader,optimizer\n" + "".join(f"{row}\n" for row in lines)
    commit = first_commit(line(repository, domain), domain, [item.tip for item in tips], text, content)
    return Branched(domain, commit, start.step, new=True)


def _merged(repository: Repository, tips: Sequence[Expert], recipe: Recipe) -> tuple[dict[str, str], list[str]]:
    """git's names of the merged model's files, by their paths, and the lines that record the merge."""
    git, found = repository.git, {}
    for item in tips:
        if adapter := ModelAt(repository, item.tip).adapter:
            raise refusal(item.branch, adapter)
    named = [trailers.Expert(item.tip, item.branch) for item in tips]
    record = trailers.record(recipe, named)
    paths = [path for path in blobs(repository, tips[0].commit, f"{places.MODEL}/") if path.endswith(".safetensors")]
    with Desk(repository) as desk, git.blobs() as reader:
        trees = Trees(git, reader)
        for path in paths:
            oids = [trees.entry(item.tip, path) for item in tips]
            manifests = [trees.manifest(oid) if oid else None for oid in oids]
            if any(manifest is None for manifest in manifests):
                raise ThetaError(f"{path} is not in all of {', '.join(item.branch for item in tips)}")
            whole = tuple(manifest for manifest in manifests if manifest)
            merged = desk.merge(Question(path, whole, None, recipe))
            text = merged.manifest.dumps()
            assert loads(text).digest == merged.manifest.digest
            found[path] = git.run("hash-object", "-w", "--stdin", stdin=text).stdout.decode().strip()
    return found, trailers.dumps(record)

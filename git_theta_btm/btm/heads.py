"""Heads: whether what git would merge, from where HEAD is, are the experts that were named, and these alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from ..errors import UsageError
from ..git import Git
from ..merging.heads import Head, Merge, common_ancestor
from ..repository import Repository
from .experts import Expert, checkpoints
from .places import ADAPTER, MODEL


def unmerged(repository: Repository, experts: Sequence[Expert]) -> bool:
    """Whether HEAD lacks one of the experts.

    Raises ``UsageError``, with what to do, if git would merge others than these, or in another order.
    """
    git = repository.git
    head = git.text("rev-parse", "HEAD")
    held = [expert for expert in experts if git.contains(head, expert.tip)]
    if len(held) == len(experts):
        return False
    _check_apart(git, experts)
    current = next((expert for expert in held if expert.tip == head), None)
    if current is None:
        _check_seed(repository, experts, held)
    elif current is not experts[0]:
        names = _names([current, *(expert for expert in experts if expert is not current)], " ")
        raise UsageError(
            f"{current.branch} is checked out, so git puts it first: 'git btm merge {names}', weights in that order too"
        )
    return True


def _names(experts: Sequence[Expert], between: str = ", ") -> str:
    return between.join(expert.branch for expert in experts)


def _check_apart(git: Git, experts: Sequence[Expert]) -> None:
    """Git drops a head that another one has in its history."""
    for one, other in combinations(experts, 2):
        if one.branch == other.branch:
            raise UsageError(f"{one.branch} is named twice")
        for less, more in ((one, other), (other, one)):
            if git.contains(more.tip, less.tip):
                raise UsageError(f"{more.branch} has all of {less.branch} in its history: leave {less.branch} out")


def _check_seed(repository: Repository, experts: Sequence[Expert], held: Sequence[Expert]) -> None:
    """HEAD is no expert: its model is the one that all of them were branched from."""
    git = repository.git
    heads = [Head(expert.tip, expert.branch) for expert in experts]
    ancestor = common_ancestor(git, [git.text("rev-parse", "HEAD"), *(head.commit for head in heads)])
    merge = Merge(repository, heads, [ancestor] if ancestor else [])
    if not held and merge.ours not in merge.experts:
        return
    ours = merge.ours.name
    why = f"{_names(held)} is in {ours} already" if held else f"{ours} has another model than the seed"
    start = _start(git, experts[0].checkpoint.seed or ancestor)
    rest = _names([expert for expert in experts if expert not in held], " ")
    raise UsageError(
        f"{why}, and {ours} would count as one more expert: merge on a branch that begins at the seed ('git switch -c "
        f"NAME {start}'), or count {ours} too ('git theta merge {rest}')"
    )


def _start(git: Git, seed: str | None) -> str:
    """The last commit on the way to HEAD that has the seed's model still, and the priors that were committed since."""
    if seed is None:
        return "COMMIT"
    found = seed
    last = next(checkpoints(git, "HEAD"), None)
    if git.contains("HEAD", seed) and not (last and last[1].domain):
        words = ("log", "--first-parent", "--format=%H", f"{seed}..HEAD", "--", MODEL, ADAPTER)
        changed = git.text(*words).split()
        found = f"{changed[-1]}^" if changed else seed
    return git.text("rev-parse", "--short=10", found)

"""Soups: experts merged in memory, and weights for them that do best on held-out text.

Greedy soup: Wortsman et al., "Model soups", arXiv:2203.05482. Weights from the domain posterior: Li et al.,
"Branch-Train-Merge", arXiv:2208.03306, where they are the strongest of all averages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING

from ..api import Checkpoint
from ..errors import ThetaError
from ..merging.computing import Device
from ..merging.inputs import Models
from ..merging.producing import compute
from ..merging.recipe import Recipe
from ..merging.resolve import plan
from ..repository import Repository
from .models import ModelAt, tensor_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weights = tuple[float, ...]
Loss = Callable[[Weights], float]  # of the merge by these weights, on held-out text, in nats a token

_STEPS = (0.5, 0.25, 0.1, 0.05)  # how far a search moves towards one expert, and back


class Kitchen:
    """Models of several commits, which are merged as ``git theta merge`` would, without a commit."""

    def __init__(self, repository: Repository, commits: Sequence[str], base: str | None = None) -> None:
        self._store = repository.store
        self._models = [ModelAt(repository, commit) for commit in commits]
        self._base = ModelAt(repository, base) if base else None

    def merged(self, recipe: Recipe) -> PreTrainedModel:
        """The model that the recipe makes of all. Raises ``MergeConflict`` as the merge would."""
        state = {}
        for path in self._models[0].shards:
            tips = [model.shards.get(path) for model in self._models]
            missing = [model.revision for model, tip in zip(self._models, tips, strict=True) if tip is None]
            if missing:
                raise ThetaError(f"{missing[0]} has no {path}")
            checkpoints = tuple(Checkpoint(tip, self._store) for tip in tips if tip)
            before = self._base.shards.get(path) if self._base else None
            base = Checkpoint(before, self._store) if before else None
            steps = plan([item.manifest for item in checkpoints], before, recipe)
            sources = compute(Models(checkpoints, base), steps, Device())
            for name, entry in checkpoints[0].entries.items():
                source = sources.get(name)
                data = source.read(0, source.size) if source else checkpoints[0].raw(name)
                state[name] = tensor_of(name, data, entry.tensor)
        return self._models[0].model(state)


@dataclass(frozen=True, slots=True)
class Soup:
    """Weights, and the loss of their merge."""

    weights: Weights
    loss: float


def greedy(alone: Sequence[float], loss: Loss) -> Soup:
    """Experts are added one by one, the best first, as long as the uniform average of those chosen does not get worse.

    ``alone`` is the loss of each by itself.
    """
    order = sorted(range(len(alone)), key=lambda index: alone[index])
    chosen = [order[0]]
    best = alone[order[0]]
    for index in order[1:]:
        tried = [*chosen, index]
        found = loss(_uniform(tried, len(alone)))
        if found <= best:
            chosen, best = tried, found
    return Soup(_uniform(chosen, len(alone)), best)


def _uniform(chosen: Sequence[int], count: int) -> Weights:
    return tuple(1 / len(chosen) if index in chosen else 0.0 for index in range(count))


def search(start: Weights, loss: Loss, evaluations: int) -> Soup:
    """Weights from ``start`` moved towards one expert or away from it, wherever that helps, in shorter and shorter
    steps, until as many merges have been evaluated."""
    best = Soup(normalised(start), loss(normalised(start)))
    left, seen = evaluations - 1, {best.weights}
    for step in _STEPS:
        moved = True
        while moved and left > 0:
            moved = False
            for tried in _neighbours(best.weights, step):
                if left <= 0:
                    break
                if tried in seen:
                    continue
                seen.add(tried)
                left -= 1
                if (found := loss(tried)) < best.loss:
                    best, moved = Soup(tried, found), True
    return best


def _neighbours(weights: Weights, step: float) -> list[Weights]:
    found = []
    for index, weight in enumerate(weights):
        towards = tuple((1 - step) * other + (step if place == index else 0) for place, other in enumerate(weights))
        away = tuple(max(0.0, other - (step if place == index else 0)) for place, other in enumerate(weights))
        found.append(normalised(towards))
        if weight and any(away):
            found.append(normalised(away))
    return found


def normalised(weights: Sequence[float]) -> Weights:
    """Weights that sum to 1. Raises ``ThetaError`` if they have no sum."""
    whole = fsum(weights)
    if not whole > 0 or min(weights) < 0:
        raise ThetaError("weights of experts are positive, and not all of them 0")
    return tuple(weight / whole for weight in weights)


def strongest(weights: Sequence[float]) -> Weights:
    """All for the largest weight, the first of several."""
    largest = max(range(len(weights)), key=lambda index: weights[index])
    return tuple(float(index == largest) for index in range(len(weights)))

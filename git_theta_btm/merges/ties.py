"""TIES: trim every task vector to its largest elements, elect a sign for each element, and average what agrees with it.

    result = base + lambda * sum(w * trim(tip - base), where it has the elected sign) / sum(|w|, likewise)

The elected sign is that of ``sum(w * trim(tip - base))``, and + where this is 0.
Yadav, Tam, Choshen, Raffel, Bansal, "TIES-Merging: Resolving Interference When Merging Models", arXiv:2306.01708.

The paper keeps 20 % of all parameters together, as ``scope=model`` does, knows no weights, and gives an exact tie the
sign that most of the model has. mergekit trims each tensor, as ``scope=tensor`` does, but with a density of 1 by
default, which trims nothing. It breaks ties at the threshold in no defined order: here all of a tie are kept, so that
no order has a say, and at least one element is. It divides by the sum of the weights with their signs, which can be 0
or turn a change around; ours is the sum of their magnitudes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, ClassVar

from ..errors import ThetaError
from ..maths.masks import trimmed
from ..maths.selection import largest, last, share
from ..maths.signs import merged
from ..maths.sums import weighted
from . import Measures, Sides, Strategy, Tile, option, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Ties(Strategy):
    """The mean of the largest changes that go the way most of them go."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False

    density: tuple[float, ...] = option((0.2,), "the part of each task vector that is kept", low=0, high=1)
    lambda_: float = option(1.0, "what the merged task vector is multiplied by")
    normalize: bool = option(default=True, text="average what agrees, instead of adding it up")
    scope: str = option("tensor", "what is trimmed together: a tensor, or the model", choices=("tensor", "model"))
    elect: str = option("sum", "signs by the sum of changes, or by their number", choices=("sum", "frequency"))

    def survey(self, model: Iterable[Sides]) -> Measures:
        """Raises ``ThetaError`` if a parameter has other models than the rest."""
        if self.scope == "tensor":
            return {}
        parameters = list(model)
        return {"thresholds": self._thresholds(parameters)} if parameters else {}

    def measure(self, sides: Sides, model: Measures) -> Measures:
        return model if self.scope == "model" else {"thresholds": self._thresholds([sides])}

    def _thresholds(self, model: list[Sides]) -> tuple[float, ...]:
        """For each tip, the least magnitude that is kept."""
        if len({len(sides.weights) for sides in model}) > 1:
            raise ThetaError("scope=model needs parameters that all models have")
        size = sum(prod(sides.shape) for sides in model)
        densities = spread(self.density, len(model[0].weights), "density")

        ranks = [[last(share(density, size), size)] for density in densities]

        def passes() -> Iterator[list[Any]]:
            return (tile.deltas for tile in chain.from_iterable(sides.tiles() for sides in model))

        return tuple(low for (low,) in largest(passes, size, ranks))

    def combine(self, tile: Tile, measures: Measures) -> Any:
        kept = [trimmed(tile.xp, delta, low) for delta, low in zip(tile.deltas, measures["thresholds"], strict=True)]
        frequency = self.elect == "frequency"
        moved = merged(tile.xp, kept, tile.weights, normalize=self.normalize, frequency=frequency)
        return weighted((tile.base, moved), (1.0, self.lambda_))

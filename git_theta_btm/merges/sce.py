"""SCE: select the elements in which the models differ most, calculate a coefficient for each model, erase minorities.

    result = base + sum(c * (tip - base), where selected and of the elected sign) / sum(c, likewise)
    c = w * sum((tip - base) ** 2, where selected) / the same summed over the tips

Selected are the elements of a tensor with the largest variance across the tips: the part ``select_topk`` of those that
have any. The elected sign is that of ``sum(w * (tip - base))``, and + where this is 0. Wan, Zhong, Yang, Shi, Quan,
"FuseChat: Knowledge Fusion of Chat Models", arXiv:2408.07990, section 3.3, which has no weights (all are 1 here).

mergekit takes equal coefficients if the mean squares sum to less than 1e-6, as those of most fine-tuned models do; ours
only depend on their ratios, and fall back to the weights if all squares are 0 or one is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf, isfinite, prod
from typing import Any, ClassVar

from ..maths.masks import zeroed
from ..maths.selection import largest, share
from ..maths.signs import agreeing, elected, scaled
from ..maths.sums import dot
from . import Measures, Sides, Strategy, Tile, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Sce(Strategy):
    """The mean of what the models changed most differently, by the squares of their changes."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False

    select_topk: float = option(1.0, "the part of the elements that differ which is merged", low=0, high=1)

    def measure(self, sides: Sides, model: Measures) -> Measures:
        least = self._least(sides)
        squares = [[dot(delta, delta) for delta in _selected(tile, least)] for tile in sides.tiles()]
        sums = [_added(each) for each in zip(*squares, strict=True)] or [0.0] * len(sides.weights)
        shares = [weight * each for weight, each in zip(sides.weights, sums, strict=True)]
        whole = _added([abs(each) for each in shares])
        usable = 0 < whole < inf
        return {"least": (least,), "coefficients": tuple(each / whole for each in shares) if usable else sides.weights}

    def _least(self, sides: Sides) -> float:
        """The least variance that is selected."""
        if self.select_topk == 1:
            return 0.0
        differing = sum(int(tile.xp.sum(_variance(tile) != 0)) for tile in sides.tiles())
        rank = share(self.select_topk, differing)
        size = prod(sides.shape)
        ((least,),) = largest(lambda: ([_variance(tile)] for tile in sides.tiles()), size, [[rank]])
        return least

    def combine(self, tile: Tile, measures: Measures) -> Any:
        (least,), coefficients = measures["least"], measures["coefficients"]
        deltas = _selected(tile, least)
        terms = scaled(deltas, coefficients)
        if not terms:
            return tile.base
        negative = elected(scaled(deltas, tile.weights))
        return tile.base + agreeing(tile.xp, terms, negative, [each for each in coefficients if each])


def _variance(tile: Tile) -> Any:
    """The sum of squared distances from the mean; taken from the first tip, so that of equal tips it is 0."""
    apart = [tip - tile.tips[0] for tip in tile.tips]
    mean = sum(apart[1:], start=apart[0]) / float(len(apart))
    squares = [(each - mean) * (each - mean) for each in apart]
    return sum(squares[1:], start=squares[0])


def _selected(tile: Tile, least: float) -> list[Any]:
    """The task vectors with 0 in place of what is not selected."""
    if not least:
        return tile.deltas
    dropped = _variance(tile) < least
    return [zeroed(tile.xp, delta, dropped) for delta in tile.deltas]


def _added(parts: Sequence[float]) -> float:
    """The sum, infinite if there is none."""
    try:
        return fsum(parts) if all(map(isfinite, parts)) else inf
    except OverflowError:
        return inf

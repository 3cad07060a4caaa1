"""NuSlerp: slerp of two models by their weights, ``t = w2 / (w1 + w2)``; where there is a base, of what they learned,
``base + slerp(tip1 - base, tip2 - base)``. As mergekit has it, with its options as two strategies.

``nuslerp`` takes a parameter as one vector, ``nuslerp_rows`` each of its rows or columns. Where mergekit takes t as 1/2
for weights that sum to nearly 0, only 0 itself is an error here. Near-parallel vectors are interpolated along the chord
below a sine of 1e-6, where the two are the same in float64, instead of 1e-8, which is less than a cosine can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import ClassVar

from ..errors import ThetaError
from ..maths.geometry import arc, gram
from ..maths.rows import column, restored, table, totals
from . import Array, Coefficients, Linear, Measures, Sides, Strategy, Tile, option

_DELTAS = "turn what was learned since the base where there is one, instead of the whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class NuSlerp(Linear):
    """A point of the arc between two models, or what they learned."""

    takes_base: ClassVar[bool] = True
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    deltas: bool = option(default=True, text=_DELTAS)

    def coefficients(self, sides: Sides) -> Coefficients:
        """Raises ``ThetaError`` if the weights sum to nothing."""
        deltas = self.deltas and sides.has_base
        products = gram((tile.deltas if deltas else tile.tips for tile in sides.tiles()), 2)
        tips = arc(products, _way(sides.weights))
        return Coefficients(tips, base=1 - fsum(tips) if deltas else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NuSlerpRows(Strategy):
    """As nuslerp, with an arc for each row or column."""

    takes_base: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    deltas: bool = option(default=True, text=_DELTAS)
    along: str = option("rows", "vectors are the rows (last axis), or the columns (first)", choices=("rows", "columns"))

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """Raises ``ThetaError`` if the weights sum to nothing."""
        return {"t": (_way(sides.weights),)}

    def combine(self, tile: Tile, measures: Measures) -> Array:
        deltas, shape, xp = self.deltas and tile.base is not None, tuple(tile.tips[0].shape), tile.xp
        if 0 in shape:
            return tile.tips[0]
        axis = -1 if self.along == "rows" else 0
        left, right = (table(vector, xp, axis) for vector in (tile.deltas if deltas else tile.tips))
        products = zip(
            *(totals(product).tolist() for product in (left * left, left * right, right * right)), strict=True
        )
        (t,) = measures["t"]
        weights = [arc([[one, both], [both, two]], t) for one, both, two in products]
        firsts, seconds = (column(list(values), left, xp) for values in zip(*weights, strict=True))
        turned = restored(left * firsts + right * seconds, xp, shape, axis)
        return tile.base + turned if deltas else turned


def _way(weights: tuple[float, ...]) -> float:
    """How far along the arc to go."""
    whole = fsum(weights)
    if not whole:
        raise ThetaError("weights that sum to 0 are no way between two models")
    return weights[1] / whole

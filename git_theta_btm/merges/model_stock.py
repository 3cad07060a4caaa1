"""Model stock: ``t * mean(tips) + (1 - t) * base``, ``t = N c / (1 + (N - 1) c)``, c the mean cosine of the angles
between what the N models learned. The less they agree, the nearer the result is to the base.

Jang, Yun and Han, "Model stock: all we need is just a few fine-tuned models", arXiv:2403.19522. ``model_stock`` has one
t for each parameter, ``model_stock_rows`` one for each of its rows (mergekit's ``filter_wise``). t is the share of a
way, so it is at least 0 here: the formula has a pole at ``c = -1 / (N - 1)``, and mergekit goes away from the models as
far as that takes it. It has no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import fsum
from typing import Any, ClassVar

from ..maths.geometry import cosines, gram, measurable
from ..maths.rows import lengths, restored, table, totals
from ..maths.sums import weighted
from . import Array, Coefficients, Linear, Measures, Sides, Strategy, Tile


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStock(Linear):
    """A point between the base and the mean of the models, by the angles between them."""

    needs_base: ClassVar[bool] = True
    least: ClassVar[int] = 2

    def coefficients(self, sides: Sides) -> Coefficients:
        count = len(sides.weights)
        products = gram((tile.deltas for tile in sides.tiles()), count)
        if not measurable(products):
            return Coefficients((1.0,) * count, divisor=count)
        angles = cosines(products)[1]
        pairs = [angles[left][right] for left, right in combinations(range(count), 2)]
        cosine = max(0.0, fsum(pairs) / len(pairs))
        t = count * cosine / (1 + (count - 1) * cosine)
        return (
            Coefficients((t,) * count, base=count * (1 - t), divisor=count) if t else Coefficients((0.0,) * count, 1.0)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStockRows(Strategy):
    """As model_stock, with its own point for each row."""

    needs_base: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    least: ClassVar[int] = 2

    def combine(self, tile: Tile, measures: Measures) -> Array:
        xp, shape, count = tile.xp, tuple(tile.tips[0].shape), len(tile.tips)
        if 0 in shape:
            return tile.base
        deltas = [table(delta, xp) for delta in tile.deltas]
        cosine = _cosine(deltas, xp)
        t = count * cosine / (1 + (count - 1) * cosine)
        mean = table(weighted(tile.tips, (1.0,) * count, count), xp)
        base = table(tile.base, xp)
        between = xp.where(t < 1, t * mean + (1 - t) * base, mean)
        return restored(xp.where(t > 0, between, base), xp, shape)


def _cosine(deltas: list[Array], xp: Any) -> Array:
    """The mean cosine between the same rows of matrices, as a column, at least 0; 1 for rows that are not finite."""
    sizes = [lengths(delta, xp) for delta in deltas]
    pairs = list(combinations(range(len(deltas)), 2))
    result = xp.zeros_like(sizes[0])
    for left, right in pairs:
        both = sizes[left] * sizes[right]
        product = xp.reshape(totals(deltas[left] * deltas[right]), (-1, 1))
        angle = xp.clip(product / xp.where(both == 0, xp.ones_like(both), both), -1.0, 1.0)
        result = result + xp.where(both == 0, both, angle)
    mean = result / len(pairs)
    return xp.where(xp.isfinite(mean), xp.clip(mean, 0.0, 1.0), xp.ones_like(mean))

"""Arcee fusion: the elements of the other model that matter, ``|b - a| * KL(softmax(b) || softmax(a))`` by rows at or
above the median plus 1.5 times the distance of the quartiles, and a's own elsewhere.

By Arcee AI (mergekit 0.1). mergekit samples a million elements for the quantiles of a larger parameter, so two runs
differ; here they are exact. It adds 1e-8 to probabilities, which its logarithm needs; ours does not. a is the first
of two models, or the base of an only one. An importance that is not a number counts as none.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

from ..maths.geometry import ends
from ..maths.quantiles import quantiles
from ..maths.rows import divergence, restored, table
from . import Array, Measures, Strategy, Tile

_BLOCK = 1 << 15  # elements whose exponentials are taken at a time: they stay in a second-level cache
_SPREAD = 1.5  # Tukey's fence, from the median


@dataclass(frozen=True, slots=True, kw_only=True)
class ArceeFusion(Strategy):
    """The first model, or the base, with the other's elements where they matter most."""

    takes_base: ClassVar[bool] = True
    ordered: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # an only model is not what the base becomes
    most: ClassVar[int | None] = 2

    def combine(self, tile: Tile, measures: Measures) -> Array:
        """Raises ``ThetaError`` for one model without a base."""
        old, new = ends(tile.tips, tile.base)
        xp, shape = tile.xp, tuple(old.shape)
        if 0 in shape:
            return old
        before, after = table(old, xp), table(new, xp)
        step = max(1, _BLOCK // before.shape[1])
        starts = range(0, before.shape[0], step)
        importance = xp.concat([_importance(before[at : at + step], after[at : at + step], xp) for at in starts])
        return restored(xp.where(importance >= _threshold(importance), after, before), xp, shape)


def _importance(before: Array, after: Array, xp: ModuleType) -> Array:
    """How much each element matters, for some rows."""
    found = xp.abs(after - before) * divergence(after, before, xp)
    return xp.where(xp.isnan(found), xp.zeros_like(found), found)


def _threshold(importance: Array) -> float:
    """The importance from which on an element is taken."""
    low, median, high = quantiles(importance, (0.25, 0.5, 0.75))
    return median + _SPREAD * (high - low)

"""NearSwap: each element goes towards the other model's, by at most ``t``.

By alchemonaut, who defines it as ``(1 - g) a + g b``, ``g = min(1, t / |a - b|)``, for the model QuartetAnemoi-70B
(whose t of 0.0001 is the default; above 0.0025 models degrade). As ``g (b - a)`` is ``b - a`` cut off at t, this is b
clipped to ``[a - t, a + t]``, which needs no division, and none of mergekit's floor of 1e-6 for it. a is the first of
two models, or the base of an only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..maths.geometry import ends
from . import Array, Measures, Strategy, Tile, option


@dataclass(frozen=True, slots=True, kw_only=True)
class NearSwap(Strategy):
    """The first model, or the base, with the other's elements where they are near."""

    takes_base: ClassVar[bool] = True
    ordered: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # an only model is not what the base becomes
    most: ClassVar[int | None] = 2

    t: float = option(0.0001, "how far an element may move", low=0)

    def choice(self, count: int) -> int | None:
        return None if self.t else count - 2

    def combine(self, tile: Tile, measures: Measures) -> Array:
        """Raises ``ThetaError`` for one model without a base."""
        near, far = ends(tile.tips, tile.base)
        clipped: Array = tile.xp.minimum(tile.xp.maximum(far, near - self.t), near + self.t)
        return clipped

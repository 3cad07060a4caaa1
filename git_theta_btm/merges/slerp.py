"""Slerp: the point at ``t`` of the arc from one model to another, ``(sin((1-t)W) a + sin(tW) b) / sin(W)``, with W the
angle between them; of the chord if they are as good as parallel, ``|cos W| > 0.9995``.

Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985. A parameter is one vector. The arc goes from the
first of two models to the second, or from the base to an only one. mergekit has no default for ``t``, and gives a
vector of zeros a right angle to everything; it has no direction, so here the chord is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..maths.geometry import arc, ends, gram
from . import Coefficients, Linear, Sides, option

_PARALLEL = 0.9995


@dataclass(frozen=True, slots=True, kw_only=True)
class Slerp(Linear):
    """A point of the arc between two models, or the base and one."""

    takes_base: ClassVar[bool] = True
    ordered: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # an only model is no end of the way from the base
    most: ClassVar[int | None] = 2

    t: float = option(0.5, "how far along the arc: 0 is where it starts, 1 where it ends", low=0, high=1)

    def choice(self, count: int) -> int | None:
        return {0.0: count - 2, 1.0: count - 1}.get(self.t)

    def coefficients(self, sides: Sides) -> Coefficients:
        """Raises ``ThetaError`` for one model without a base."""
        first, second = arc(gram((ends(tile.tips, tile.base) for tile in sides.tiles()), 2), self.t, _PARALLEL)
        return Coefficients((first, second)) if len(sides.weights) == 2 else Coefficients((second,), base=first)

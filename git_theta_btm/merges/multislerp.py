"""Multislerp: the mean direction at the mean length, of the models, or of what they learned where there is a base.

mergekit's barycentric interpolation on the sphere: with u = x / |x| and m the direction of ``sum(w u)``, it projects
each u on the tangent space at m, steps by ``v = sum(w (u - <u, m> m))``, and scales by ``sum(w |x|)``. That step is
always zero: ``<sum(w u), m> m`` is ``sum(w u)`` itself. So the result is ``m sum(w |x|)``, which is what is computed.

Where the unit vectors cancel, mergekit averages two models and fails for more, as for any parameter that no model
changed; here it is the weighted sum for any number.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import ClassVar

from ..errors import ThetaError
from ..maths.geometry import cosines, gram, length, measurable
from . import Coefficients, Linear, Sides, option

_DELTAS = "turn what was learned since the base where there is one, instead of the whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiSlerp(Linear):
    """The mean of the models on a sphere."""

    takes_base: ClassVar[bool] = True
    shares: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # it is, if normalised

    normalize_weights: bool = option(default=True, text="divide the weights by their sum")
    eps: float = option(1e-8, "share of its parts below which a sum of directions has none", low=0, high=1)
    deltas: bool = option(default=True, text=_DELTAS)

    def coefficients(self, sides: Sides) -> Coefficients:
        """Raises ``ThetaError`` if weights that are to be normalised sum to nothing."""
        divisor = fsum(sides.weights) if self.normalize_weights else 1.0
        if not divisor:
            raise ThetaError("weights that sum to 0 cannot be normalized")
        weights = [weight / divisor for weight in sides.weights]
        deltas = self.deltas and sides.has_base
        products = gram((tile.deltas if deltas else tile.tips for tile in sides.tiles()), len(weights))
        tips = self._turned(products, weights)
        return Coefficients(tips, base=1 - fsum(tips) if deltas else 0.0)

    def _turned(self, products: list[list[float]], weights: list[float]) -> tuple[float, ...]:
        """The weights of the vectors in their mean on the sphere."""
        if not measurable(products):
            return tuple(weights)
        lengths, angles = cosines(products)
        together = length(angles, weights)
        if together <= self.eps * fsum(map(abs, weights)):
            return tuple(weights)
        scale = fsum(weight * each for weight, each in zip(weights, lengths, strict=True)) / together
        return tuple(weight / each * scale if each else 0.0 for weight, each in zip(weights, lengths, strict=True))

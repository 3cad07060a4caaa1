"""Linear: the weighted sum, ``sum(w * tip)``, divided by ``sum(w)`` unless ``normalize`` is off.

Wortsman et al., "Model soups", arXiv:2203.05482. mergekit divides by weights that sum to 0 and makes infinities; here
this is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import ClassVar

from ..errors import ThetaError
from . import Coefficients, Linear, Sides, option


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedSum(Linear):
    """The sum of the models, each times its weight."""

    looks: ClassVar[bool] = False
    shares: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # it is, if normalised

    normalize: bool = option(default=True, text="divide by the sum of the weights")

    def coefficients(self, sides: Sides) -> Coefficients:
        """Raises ``ThetaError`` if it has to divide by weights that sum to nothing."""
        whole = fsum(sides.weights) if self.normalize else 1.0
        if not whole:
            raise ThetaError("weights that sum to 0 cannot be normalized")
        return Coefficients(sides.weights, divisor=whole)

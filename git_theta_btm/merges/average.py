"""Average: the weighted mean, ``sum(w * tip) / sum(w)``; with equal weights the uniform mean.

Wortsman et al., "Model soups", arXiv:2203.05482; the parameter average of "Branch-Train-Merge", arXiv:2208.03306.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import ClassVar

from ..errors import ThetaError
from . import Coefficients, Linear, Sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(Linear):
    """The mean of the experts, by their weights, whatever these sum to."""

    looks: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    def coefficients(self, sides: Sides) -> Coefficients:
        """Raises ``ThetaError`` if the weights sum to nothing."""
        whole = fsum(sides.weights)
        if not whole:
            raise ThetaError("weights that sum to 0 have no average")
        return Coefficients(sides.weights, divisor=whole)

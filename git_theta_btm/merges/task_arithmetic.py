"""Task arithmetic: ``base + lambda * sum(w * (tip - base))``, divided by ``sum(w)`` if ``normalize`` is on.

Ilharco et al., "Editing models with task arithmetic", arXiv:2212.04089: a negative weight forgets a task, and for many
tasks a lambda of 0.3 to 0.4 is usual. The default of 1 is mergekit's. Where the weights sum to 0 mergekit does not
normalise without a word; here this is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import ClassVar

from ..errors import ThetaError
from . import Coefficients, Linear, Sides, option


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskArithmetic(Linear):
    """The base, with what each model learned since added to it."""

    looks: ClassVar[bool] = False
    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False

    lambda_: float = option(1.0, "what to multiply the sum of the changes by")
    normalize: bool = option(default=False, text="divide by the sum of the weights")

    def coefficients(self, sides: Sides) -> Coefficients:
        """Raises ``ThetaError`` if it has to divide by weights that sum to nothing."""
        divisor = fsum(sides.weights) if self.normalize else 1.0
        if not divisor:
            raise ThetaError("weights that sum to 0 cannot be normalized")
        tips = tuple(self.lambda_ * weight for weight in sides.weights)
        return Coefficients(tips, base=divisor - fsum(tips), divisor=divisor)

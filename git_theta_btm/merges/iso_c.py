"""Iso-C: the sum of the task vectors with all its singular values made equal, so that no direction is drowned out,
``base + lambda * mean(S) * U @ V`` for ``U, S, V`` the decomposition of ``sum(w * delta)``.

Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces",
arXiv:2502.04959. What is no matrix gets the mean of the task vectors. mergekit has no such method. Unlike the authors'
code, directions that no expert moved in are left out of the result and of the mean: their singular vectors are
arbitrary, and a sum of low-rank updates has many. Weights are shares, whatever they sum to: equal ones give the paper's
sum. Embeddings are matrices, too; the paper's models have theirs frozen, so give them another strategy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..maths.singular import finite, shares, svd
from ..maths.sums import weighted
from . import Array, Measures, Sides, Strategy, Tile, option


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoC(Strategy):
    """The sum of the task vectors with a flat spectrum, added to the base."""

    needs_base: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    idempotent: ClassVar[bool] = False
    lambda_: float = option(1.0, "what the merged task vector is multiplied by")

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """Raises ``ThetaError`` if the weights sum to nothing."""
        return {"whole": (shares(sides.weights),)}

    def combine(self, tile: Tile, measures: Measures) -> Array:
        xp, (whole,) = tile.xp, measures["whole"]
        mean = weighted(tile.deltas, tile.weights, whole)
        if len(mean.shape) != 2 or not finite(xp, mean):
            return tile.base + self.lambda_ * mean
        left, values, right = svd(xp, mean * sum(map(bool, tile.weights)))
        if not values.shape[0]:  # nobody moved
            return tile.base
        level = float(xp.sum(values)) / values.shape[0]
        return tile.base + (self.lambda_ * level) * (left @ right)

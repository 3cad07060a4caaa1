"""TSV-M: each expert's strongest singular directions, made orthogonal to those of the others before they are added up.

Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", arXiv:2412.00081. Of each task
vector the largest ``rank / N`` singular values are kept; the kept left vectors of all experts side by side, and the
right ones, are each replaced by the nearest matrix with orthonormal columns. What is no matrix gets the mean of the
task vectors. mergekit has no such method. Unlike the authors' code at least one direction of each expert is kept, and
none that it did not move in, whose singular vectors are arbitrary. Weights are shares, whatever they sum to: equal
ones give the paper's result, others make an expert's singular values count more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..maths.singular import finite, orthogonal, shares, svd
from ..maths.sums import weighted
from . import Array, Measures, Sides, Strategy, Tile, option


@dataclass(frozen=True, slots=True, kw_only=True)
class TsvM(Strategy):
    """The strongest directions of each task vector, freed of their overlap, added to the base."""

    needs_base: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    idempotent: ClassVar[bool] = False
    lambda_: float = option(1.0, "what the merged task vector is multiplied by")

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """Raises ``ThetaError`` if the weights sum to nothing."""
        return {"whole": (shares(sides.weights),)}

    def combine(self, tile: Tile, measures: Measures) -> Array:
        xp, (whole,), deltas = tile.xp, measures["whole"], tile.deltas
        mean = weighted(deltas, tile.weights, whole)
        if len(mean.shape) != 2 or not finite(xp, mean):
            return tile.base + self.lambda_ * mean
        taking = [(delta, weight) for delta, weight in zip(deltas, tile.weights, strict=True) if weight]
        kept = max(1, min(mean.shape) // len(taking))
        lefts, values, rights = [], [], []
        for delta, weight in taking:
            left, strengths, right = svd(xp, delta)
            lefts.append(left[:, :kept])
            values.append(strengths[:kept] * (weight * len(taking) / whole))
            rights.append(right[:kept, :])
        left, right = orthogonal(xp, xp.concat(lefts, axis=1)), orthogonal(xp, xp.concat(rights, axis=0))
        return tile.base + self.lambda_ * ((left * xp.concat(values)) @ right)

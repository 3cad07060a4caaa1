"""Fisher: each element is the mean of the experts by how much each of them depends on it,
``sum(w * F * tip) / sum(w * F)`` with ``F`` the diagonal of an expert's Fisher information.

Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", arXiv:2111.09832. With the weights of a domain
posterior it is the precision-weighted mean of the experts' Laplace approximations. mergekit has no such method. In
FusionBench, normalising divides by each model's L2 norm and the floor is added before: there a model whose information
is tiny everywhere sinks below the floor. Here each model's values are first divided by their root mean square over all
parameters, and what is below the floor is then raised to it, so that the floor means the same for every model and a
parameter that nobody depends on gets the weighted mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum, isfinite, sqrt
from typing import ClassVar

from ..errors import ThetaError
from ..maths.sums import dot, weighted
from . import Array, Measures, Sides, Strategy, Tile, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Fisher(Strategy):
    """The mean of the experts, element by element, by their weights times their Fisher information."""

    shares: ClassVar[bool] = True
    statistics: ClassVar[bool] = True
    normalize: bool = option(default=True, text="divide each model's Fisher information by its root mean square")
    floor: float = option(1e-6, "the least Fisher information that an element counts with", low=1e-100)

    def survey(self, model: Iterable[Sides]) -> Measures:
        """The root mean square of each tip's Fisher information. Raises ``ThetaError`` if it is not finite."""
        if not self.normalize:
            return {}
        squares: list[list[float]] = []
        count = 0
        for tile in (tile for sides in model for tile in sides.tiles() if _known(tile)):
            squares = squares or [[] for _ in tile.statistics]
            count += tile.statistics[0].shape[0]
            for values, parts in zip(tile.statistics, squares, strict=True):
                parts.append(dot(values, values))
        if not all(isfinite(part) for parts in squares for part in parts):
            raise ThetaError("a file of Fisher information has values that are not finite")
        roots = [sqrt(fsum(parts) / count) if count else 0.0 for parts in squares]
        return {"scales": tuple(root or 1.0 for root in roots)}

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """Raises ``ThetaError`` for weights that are no shares: a negative precision has no mean."""
        if min(sides.weights) < 0 or not any(sides.weights):
            raise ThetaError("Fisher weighting takes weights of at least 0, not all of them 0")
        return {"scales": model.get("scales") or (1.0,) * len(sides.weights)}

    def combine(self, tile: Tile, measures: Measures) -> Array:
        if not _known(tile):
            return weighted(tile.tips, tile.weights, fsum(tile.weights))
        scaled = zip(tile.statistics, measures["scales"], strict=True)
        precisions = [tile.xp.clip(values / scale, self.floor, None) for values, scale in scaled]
        products = [precision * tip for precision, tip in zip(precisions, tile.tips, strict=True)]
        result: Array = weighted(products, tile.weights) / weighted(precisions, tile.weights)
        return result


def _known(tile: Tile) -> bool:
    return bool(tile.statistics) and all(values is not None for values in tile.statistics)

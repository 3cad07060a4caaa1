"""Breadcrumbs: leave the outliers and the noise of every task vector out.

    breadcrumbs        result = base + lambda * sum(w * mask(tip - base))
    breadcrumbs_ties   result = base + lambda * sum(w * mask(tip - base), where it has the elected sign)

``mask`` drops the ``gamma * n`` elements of a tensor with the largest magnitudes, and of the rest all but the largest
``density * n``; if there are not that many, fewer outliers are dropped. With ``normalize`` the sum is divided by that
of its weights. Davari, Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
arXiv:2312.06795, whose beta is ``1 - gamma - density``.

mergekit has a density of 1 by default, which leaves no noise out. Its 0.1.4 drops the whole task vector of tensors so
small that they have no outlier; here they keep it. Equal magnitudes have one fate: those equal to one that is kept are
kept, in whatever order they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from ..maths.masks import trimmed
from ..maths.selection import largest, last, share
from . import Masking, Measures, Sides, Tile, option, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Breadcrumbs(Masking):
    """The weighted sum of changes that are neither outliers nor noise."""

    density: tuple[float, ...] = option((0.9,), "the part of each task vector that is kept", low=0, high=1)
    gamma: tuple[float, ...] = option((0.01,), "the part of the largest changes that is dropped", low=0, high=1)

    def measure(self, sides: Sides, model: Measures) -> Measures:
        count, size = len(sides.weights), prod(sides.shape)
        densities, gammas = spread(self.density, count, "density"), spread(self.gamma, count, "gamma")
        ranks = [_ranks(density, gamma, size) for density, gamma in zip(densities, gammas, strict=True)]
        bounds = largest(lambda: (tile.deltas for tile in sides.tiles()), size, ranks)
        low, high = zip(*bounds, strict=True)
        return {"low": low, "high": high, "divisor": (self.whole_of(sides.weights),)}

    def combine(self, tile: Tile, measures: Measures) -> Any:
        bounds = zip(tile.deltas, measures["low"], measures["high"], strict=True)
        deltas = [trimmed(tile.xp, delta, low, high) for delta, low, high in bounds]
        return self.applied(tile, deltas, measures)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreadcrumbsTies(Breadcrumbs):
    """Changes that are neither outliers nor noise, merged where they go the way most of them go."""

    signed: ClassVar[bool] = True


def _ranks(density: float, gamma: float, size: int) -> tuple[int, int]:
    """The ranks of the least and of the largest magnitude that are kept; rank 0 is infinity."""
    kept = share(density, size)
    outliers = min(int(gamma * size), size - kept)
    return (last(outliers + kept, size) if kept else 0), (outliers + 1 if outliers else 0)

"""DELLA: drop elements of every task vector at random, the small ones of a row more likely than the large ones.

    della_linear   result = base + lambda * sum(w * drop(tip - base))
    della          result = base + lambda * sum(w * drop(tip - base), where it has the elected sign)

In a row (the last dimension) of ``m`` elements the one of rank ``r`` by magnitude, from 0, is kept with the chance
``p = density - epsilon + 2 * epsilon * r / (m - 1)``, and multiplied by ``1 / p``. A density of 1 keeps all.
With ``normalize`` the sum is divided by that of its weights.
Deep, Bhardwaj, Poria, "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling",
arXiv:2406.11617, whose epsilon is twice ours.

mergekit rescales so that each tensor's L1 norm is preserved (``rescale=l1``), has a density of 1 by default, which
drops nothing, and fails for rows of one element: here such an element is kept with the probability ``density``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

from ..errors import UsageError
from ..floats import TILE
from ..maths import chance
from ..maths.masks import drawn, ladder, norm_ratios, zeroed
from . import Masking, Measures, Sides, Tile, option, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class DellaLinear(Masking):
    """The weighted sum of changes of which the small ones are dropped more often than the large ones."""

    whole: ClassVar[bool] = True

    density: tuple[float, ...] = option((0.5,), "the mean chance of an element to be kept", low=0, high=1)
    epsilon: tuple[float, ...] = option((0.15,), "how far that chance differs for the extremes", low=0, high=0.5)
    rescale: str = option(
        "expectation", "keep the expectation, or the tensor's L1 norm", choices=("expectation", "l1", "none")
    )
    seed: int = option(0, "another number gives other masks")

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """Raises ``UsageError`` if a chance were not one, ``ThetaError`` if the weights cannot be normalized."""
        for density, epsilon in self._chances(len(sides.weights)):
            if 0 < density < 1 and not epsilon < density <= 1 - epsilon:
                raise UsageError(f"a density of {density:g} leaves no room for an epsilon of {epsilon:g} on both sides")
        factors = (1.0,) * len(sides.weights)
        if self.rescale == "l1":
            runs = (run for tile in sides.tiles() for run in _runs(tile))
            factors = norm_ratios(list(zip(run.deltas, self._dropped(run), strict=True)) for run in runs)
        return {"factors": factors, "divisor": (self.whole_of(sides.weights),)}

    def combine(self, tile: Tile, measures: Measures) -> Any:
        parts = [self._combined(run, measures) for run in _runs(tile)]
        return tile.xp.reshape(tile.xp.concat(parts), tuple(tile.tips[0].shape))

    def _combined(self, tile: Tile, measures: Measures) -> Any:
        pairs = zip(self._dropped(tile), measures["factors"], strict=True)
        deltas = [delta if factor == 1 else delta * factor for delta, factor in pairs]
        return self.applied(tile, deltas, measures)

    def _dropped(self, tile: Tile) -> list[Any]:
        """The task vectors of some rows, with 0 in place of what is dropped."""
        dropped = []
        for delta, (density, epsilon), key in zip(tile.deltas, self._chances(len(tile.tips)), tile.keys, strict=True):
            if 0 < density < 1:
                chances = density + epsilon * ladder(tile.xp, delta)
                numbers = drawn(tile.xp, delta, chance.key(str(self.seed), key.hex()), tile.start)
                grown = delta / chances if self.rescale == "expectation" else delta
                delta = zeroed(tile.xp, grown, numbers >= chances)
            dropped.append(delta if density else tile.xp.zeros_like(delta))
        return dropped

    def _chances(self, count: int) -> list[tuple[float, float]]:
        """The density and the epsilon of each tip."""
        densities, epsilons = spread(self.density, count, "density"), spread(self.epsilon, count, "epsilon")
        return list(zip(densities, epsilons, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Della(DellaLinear):
    """Changes of which the small ones are dropped more often, then averaged where they go the way most of them go."""

    signed: ClassVar[bool] = True

    normalize: bool = option(default=True, text="average what agrees, instead of adding it up")


def _runs(tile: Tile) -> Iterator[Tile]:
    """The tile's rows, in runs of about ``TILE`` elements so that little is held at a time; one at least."""
    width = tile.tips[0].shape[-1] if tile.tips[0].shape else 1
    height = prod(tile.tips[0].shape) // max(1, width)
    rows = max(1, TILE // max(1, width))
    shape = (height, width)
    tips, base = [tile.xp.reshape(tip, shape) for tip in tile.tips], tile.xp.reshape(tile.base, shape)
    for first in range(0, max(1, height), rows):
        part = slice(first, first + rows)
        cut = tuple(tip[part, :] for tip in tips)
        yield replace(tile, tips=cut, base=base[part, :], start=tile.start + first * width)

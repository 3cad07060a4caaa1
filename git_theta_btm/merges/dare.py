"""DARE: drop elements of every task vector at random, and rescale those that are left.

    dare_linear   result = base + lambda * sum(w * drop(tip - base))
    dare_ties     result = base + lambda * sum(w * drop(tip - base), where it has the elected sign)

``drop`` keeps each element with the probability ``density``, and multiplies by 1 / density, so that its expectation is
what it was. With ``normalize`` the sum is divided by that of its weights.
Yu, Yu, Yu, Huang, Li, "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
arXiv:2311.03099.

mergekit rescales so that each tensor's L1 norm is preserved (``rescale=l1``), which for few elements is far from
1 / density, and has a density of 1 by default, which drops nothing; half is what fusion_bench has. Its masks depend on
the order in which tensors come; ours are a function of the seed, the tensor, and the place of the element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..maths import chance
from ..maths.masks import drawn, norm_ratios, zeroed
from . import Masking, Measures, Sides, Tile, option, spread


@dataclass(frozen=True, slots=True, kw_only=True)
class DareLinear(Masking):
    """The weighted sum of changes that are dropped at random."""

    density: tuple[float, ...] = option((0.5,), "the chance of each element to be kept", low=0, high=1)
    rescale: str = option(
        "expectation", "keep the expectation, or the tensor's L1 norm", choices=("expectation", "l1", "none")
    )
    seed: int = option(0, "another number gives other masks")

    def measure(self, sides: Sides, model: Measures) -> Measures:
        densities = spread(self.density, len(sides.weights), "density")
        factors = (1.0,) * len(densities)
        if self.rescale == "l1":
            pairs = (list(zip(tile.deltas, self._dropped(tile), strict=True)) for tile in sides.tiles())
            factors = norm_ratios(pairs) or factors
        elif self.rescale == "expectation":
            factors = tuple(1 / density if density else 1.0 for density in densities)
        return {"factors": factors, "divisor": (self.whole_of(sides.weights),)}

    def combine(self, tile: Tile, measures: Measures) -> Any:
        pairs = zip(self._dropped(tile), measures["factors"], strict=True)
        deltas = [delta if factor == 1 else delta * factor for delta, factor in pairs]
        return self.applied(tile, deltas, measures)

    def _dropped(self, tile: Tile) -> list[Any]:
        """The task vectors with 0 in place of what is dropped."""
        densities = spread(self.density, len(tile.tips), "density")
        dropped = []
        for delta, density, key in zip(tile.deltas, densities, tile.keys, strict=True):
            if density < 1:
                numbers = drawn(tile.xp, delta, chance.key(str(self.seed), key.hex()), tile.start)
                delta = zeroed(tile.xp, delta, numbers >= density)
            dropped.append(delta)
        return dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class DareTies(DareLinear):
    """Changes that are dropped at random, then merged where they go the way most of them go."""

    signed: ClassVar[bool] = True

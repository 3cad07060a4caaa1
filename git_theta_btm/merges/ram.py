"""RAM: where several models changed an element, the mean of these; where one did, its own; else the base's.

Yuan et al., "Behavior knowledge merge in reinforced agentic models", arXiv:2601.13572. A change counts above
``epsilon``. A mean over all models would dilute what only one of them learned. It has no weights.

RAM+ amplifies what only model i changed by ``1 + r * min(s / u, alpha)``, s and u the numbers of elements that it
changed with others and alone. ``ram_plus`` counts over each parameter, as mergekit's ``ramplus_tl`` does;
``ram_plus_model`` over the whole model, as the paper does, which takes a pass over it before anything is merged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

from ..errors import ThetaError
from . import Array, Measures, Sides, Strategy, Tile, option

_EPSILON = "the largest change that counts as none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ram(Strategy):
    """The mean of the models that changed an element, and only these."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # a change below epsilon is undone

    epsilon: float = option(1e-5, _EPSILON, low=0)

    def combine(self, tile: Tile, measures: Measures) -> Array:
        return _mean(tile, _changed(tile, self.epsilon))


@dataclass(frozen=True, slots=True, kw_only=True)
class RamPlus(Strategy):
    """As ram, with what only one model changed amplified."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # an only model is amplified too

    epsilon: float = option(1e-5, _EPSILON, low=0)
    r: float = option(0.1, "how much to amplify", low=0)
    alpha: float = option(0.2, "the ratio of shared to unique changes that amplifies most", low=0)

    def measure(self, sides: Sides, model: Measures) -> Measures:
        return self._scales([sides])

    def combine(self, tile: Tile, measures: Measures) -> Array:
        changed = _changed(tile, self.epsilon)
        alone = _count(changed, tile) == 1
        result = _mean(tile, changed)
        for delta, mask, scale in zip(tile.deltas, changed, measures["scales"], strict=True):
            result = tile.xp.where(mask & alone, result + (scale - 1) * delta, result) if scale != 1 else result
        return result

    def _scales(self, model: Iterable[Sides]) -> Measures:
        """For each model, what to multiply its unique changes by."""
        shared: Counter[int] = Counter()
        unique: Counter[int] = Counter()
        for sides in model:
            for tile in sides.tiles():
                changed = _changed(tile, self.epsilon)
                alone = _count(changed, tile) == 1
                for place, mask in enumerate(changed):
                    own = int(tile.xp.count_nonzero(mask & alone))
                    unique[place] += own
                    shared[place] += int(tile.xp.count_nonzero(mask)) - own
        ratios = [shared[place] / unique[place] if unique[place] else 0.0 for place in range(len(unique))]
        return {"scales": tuple(1 + self.r * min(ratio, self.alpha) for ratio in ratios)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RamPlusModel(RamPlus):
    """As ram_plus, by what each model changed anywhere."""

    ordered: ClassVar[bool] = True  # what is counted belongs to a model, which has the same place in all parameters

    def survey(self, model: Iterable[Sides]) -> Measures:
        return self._scales(model)

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """Raises ``ThetaError`` for a parameter that not all models have."""
        if len(model["scales"]) != len(sides.weights):
            raise ThetaError(f"{sides.name[:80]}: ram_plus_model needs every parameter in all models")
        return model


def _changed(tile: Tile, epsilon: float) -> list[Array]:
    """For each model, which elements it changed; what is not a number is a change."""
    return [tile.xp.logical_not(tile.xp.abs(delta) <= epsilon) for delta in tile.deltas]


def _count(changed: list[Array], tile: Tile) -> Array:
    """How many models changed each element."""
    return reduce(add, (tile.xp.astype(mask, tile.tips[0].dtype) for mask in changed))


def _mean(tile: Tile, changed: list[Array]) -> Array:
    """The mean of the models that changed an element, the base's where none did."""
    xp, count = tile.xp, _count(changed, tile)
    kept = (xp.where(mask, tip, xp.zeros_like(tip)) for mask, tip in zip(changed, tile.tips, strict=True))
    return xp.where(count > 0, reduce(add, kept) / xp.maximum(count, xp.ones_like(count)), tile.base)

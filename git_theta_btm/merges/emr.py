"""EMR: elect a sign for each element, and take the largest change that has it.

    result = base + sign * max(|tip - base|, where it has the elected sign)

The elected sign is that of ``sum(w * (tip - base))``. This is the unified task vector of Huang, Ye, Chen, He, Yue,
Ouyang, "EMR-Merging: Tuning-Free High-Performance Model Merging", arXiv:2405.17461, which has no weights, and takes -
where the sum is 0; like our other strategies this takes +. The paper's masks and scales serve each task with a model
of its own, made from the unified one: a merge has one result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..maths.masks import zeroed
from ..maths.signs import elected, opposed, scaled
from . import Measures, Strategy, Tile


@dataclass(frozen=True, slots=True, kw_only=True)
class Emr(Strategy):
    """The largest change of those that go the way most of them go."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False  # negative weights turn around what all have in common

    def combine(self, tile: Tile, measures: Measures) -> Any:
        terms = scaled(tile.deltas, tile.weights)
        if not terms:
            return tile.base
        xp, negative = tile.xp, elected(terms)
        greatest = xp.zeros_like(terms[0])
        heard = (delta for delta, weight in zip(tile.deltas, tile.weights, strict=True) if weight)
        for delta, term in zip(heard, terms, strict=True):
            greatest = xp.maximum(greatest, zeroed(xp, xp.abs(delta), opposed(term, negative)))
        return tile.base + xp.where(negative, -greatest, greatest)

"""Consensus: add the task vectors up, but only the elements that matter to several of the models.

    result = base + alpha * tau, where at least k tips have |tip - base| > tall_lambda * |base + tau - tip|
    tau = sum(w * (tip - base))

An element that matters to one tip alone is selfish, to none catastrophic. Wang, Dimitriadis, Ortiz-Jimenez, Fleuret,
Frossard, "Localizing Task Information for Improved Model Merging and Compression", arXiv:2405.07813. With fewer than
``k`` tips all of them have to agree; tips of weight 0 have no say. The paper chooses tall_lambda from 0.2 to 0.6 by
validation; fusion_bench has 0.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..maths.masks import zeroed
from ..maths.sums import weighted
from . import Measures, Strategy, Tile, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus(Strategy):
    """The sum of all changes, where it matters to several models."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False

    tall_lambda: float = option(0.6, "how large a change is to matter, in parts of what the others add", low=0)
    k: int = option(2, "how many models an element has to matter to", low=0)
    alpha: float = option(1.0, "what the merged task vector is multiplied by")

    def combine(self, tile: Tile, measures: Measures) -> Any:
        tau = weighted(tile.deltas, tile.weights)
        moved = zeroed(tile.xp, tau, self._votes(tile, tau) < 0)
        return weighted((tile.base, moved), (1.0, self.alpha))

    def _votes(self, tile: Tile, tau: Any) -> Any:
        """How many tips more than are needed an element matters to. A comparison with NaN counts, so that NaN stays."""
        xp = tile.xp
        heard = [delta for delta, weight in zip(tile.deltas, tile.weights, strict=True) if weight]
        votes = xp.zeros_like(tau) - float(min(self.k, len(heard)))
        for delta in heard:
            votes = xp.where(xp.abs(delta) <= self.tall_lambda * xp.abs(tau - delta), votes, votes + 1.0)
        return votes

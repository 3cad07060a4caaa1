"""Perplexity: what a model makes of a text, each predicted token counting the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ThetaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Score:
    """The loss over a text, in nats: the sum of -log p of ``tokens`` predicted tokens."""

    loss: float
    tokens: int

    @property
    def mean(self) -> float:
        """The loss of a token, in nats."""
        return self.loss / self.tokens

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean; infinite if a token was held to be impossible."""
        return math.inf if self.mean > 709 else math.exp(self.mean)

    def __add__(self, other: Score) -> Score:
        return Score(self.loss + other.loss, self.tokens + other.tokens)


def score(log_probs: NDArray[np.floating[Any]]) -> Score:
    """The score of log-probabilities, NaN where nothing was predicted. Raises ``ThetaError`` if nothing was at all."""
    import numpy as np

    tokens = int(np.count_nonzero(~np.isnan(log_probs)))
    if not tokens:
        raise ThetaError("there is nothing to predict: a text needs two tokens at least")
    return Score(-float(np.nansum(log_probs, dtype=np.float64)), tokens)

"""RegMean: the linear layer whose outputs are closest, in least squares, to what each expert's are on its own data,
``W = (sum w G W_i) / (sum w G)`` with ``G`` the Gram matrix of the layer's inputs.

Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models", arXiv:2212.09849. Elements of ``G`` off
the diagonal are multiplied by ``alpha``, 0.9 as in the paper. mergekit has no such method; FusionBench inverts the sum,
which fails where there were fewer tokens than inputs and alpha is 1. Here a small ridge is added to each ``G``, the
system is solved for how the result differs from the weighted mean, and so experts that agree are kept as they are.
A parameter without Gram matrices becomes the weighted mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from types import ModuleType
from typing import ClassVar

from ..errors import ThetaError
from ..maths.sums import weighted
from . import Array, Measures, Sides, Strategy, Tile, option


@dataclass(frozen=True, slots=True, kw_only=True)
class RegMean(Strategy):
    """The layer that answers most nearly as each expert does to the inputs that it has seen."""

    shares: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    statistics: ClassVar[bool] = True
    alpha: float = option(0.9, "what to multiply Gram elements off the diagonal by", low=0.0, high=1.0)
    ridge: float = option(1e-6, "what to add to the diagonal, in parts of its mean", low=0.0, high=1.0)
    transposed: bool = option(default=False, text="weights are kept as (in, out), as those of GPT-2 are")

    def measure(self, sides: Sides, model: Measures) -> Measures:
        """Raises ``ThetaError`` for weights that are no shares: a sum of squares has no least one then."""
        if min(sides.weights) < 0 or not any(sides.weights):
            raise ThetaError("RegMean takes weights of at least 0, not all of them 0")
        return {}

    def combine(self, tile: Tile, measures: Measures) -> Array:
        """Raises ``ThetaError`` for a Gram matrix that does not fit its weight, and for one that is singular."""
        xp, whole = tile.xp, fsum(tile.weights)
        mean = weighted(tile.tips, tile.weights, whole)
        if not tile.statistics or any(gram is None for gram in tile.statistics):
            return mean
        grams = [self._reduced(xp, gram, mean) for gram in tile.statistics]
        trace = float(xp.linalg.trace(weighted(grams, tile.weights)))
        if not trace:  # a layer that no input ever reached
            return mean
        ridge = self.ridge * trace / whole / grams[0].shape[0] * _identity(xp, grams[0])
        grams = [gram + ridge for gram in grams]
        differences = [self._rows(tip - mean) for tip in tile.tips]
        pulled = [gram @ difference for gram, difference in zip(grams, differences, strict=True)]
        try:
            moved = xp.linalg.solve(weighted(grams, tile.weights), weighted(pulled, tile.weights))
        except (ValueError, RuntimeError) as error:
            if not type(error).__name__.endswith("LinAlgError"):  # NumPy and torch each have their own
                raise
            raise ThetaError("the Gram matrices are singular: give a ridge above 0") from None
        return mean + self._rows(moved)

    def _rows(self, matrix: Array) -> Array:
        """The weight as (in, out), or back."""
        return matrix if self.transposed else matrix.T

    def _reduced(self, xp: ModuleType, gram: Array, weight: Array) -> Array:
        """The Gram matrix with what is off its diagonal made smaller."""
        inputs = self._rows(weight).shape[0] if len(weight.shape) == 2 else 0
        if tuple(gram.shape) != (inputs, inputs):
            raise ThetaError(f"Gram matrix {_sizes(gram)} does not fit the weight {_sizes(weight)}")
        return gram * (self.alpha + (1.0 - self.alpha) * _identity(xp, gram))


def _identity(xp: ModuleType, matrix: Array) -> Array:
    return xp.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)


def _sizes(matrix: Array) -> str:
    return f"[{','.join(map(str, matrix.shape))}]"

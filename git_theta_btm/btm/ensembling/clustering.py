"""Weights by what a text looks like: c-BTM (arXiv:2303.14177) compares it with the clusters of the experts' texts.

With the posterior ``static`` these weights alone count; with ``last-token`` it is c-BTM's product of experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...merging.weights import top_k
from ..data import discovery
from .ensembles import Ensemble
from .posterior import Array, uniform
from .spelling import Decoder

Shares: TypeAlias = Callable[[Sequence[int]], Sequence[float]]  # for the tokens of a window so far

EVERY = 32  # tokens after which the text so far is looked at again


def priors(tokens: NDArray[np.integer[Any]], block: int, shares: Shares) -> Array:
    """The prior of each prediction of each window, ``[experts, windows, block - 1]``, by the text of the window before.

    ``shares`` are the weights for some tokens; it is asked at the start, for no tokens, and after every 32. No
    prediction depends on what follows it.
    """
    count = -(-len(tokens) // block)
    empty = np.asarray(shares([]), np.float64)
    found = np.broadcast_to(empty[:, None, None], (len(empty), count, block - 1)).copy()
    for row in range(count):
        window = tokens[row * block : (row + 1) * block]
        for seen in range(EVERY, len(window), EVERY):
            found[:, row, seen - 1 :] = np.asarray(shares(window[:seen].tolist()))[:, None]
    return found


def weigher(root: str, ensemble: Ensemble, decoder: Decoder) -> Shares:
    """What weighs an ensemble's experts, one for each cluster in their order, by some tokens: all the same for none.

    Raises ``UsageError`` if there are other clusters than experts, ``ThetaError`` if there are none.
    """
    clusters = discovery.restore(root, ensemble.clusters or "")
    count = len(ensemble.experts)
    if len(clusters.centroids) != count:
        raise UsageError(f"{ensemble.clusters} has {len(clusters.centroids)} clusters, the ensemble {count} experts")

    def shares(tokens: Sequence[int]) -> Sequence[float]:
        if not tokens:
            return tuple(uniform(count).tolist())
        found = discovery.weights(decoder(tokens), clusters, ensemble.temperature)
        return found if ensemble.topk is None else top_k(found, ensemble.topk)

    return shares

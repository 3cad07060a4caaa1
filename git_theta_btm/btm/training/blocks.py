"""Blocks: the text of a training as items that are known by their number, so that any of them can be the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import ThetaError
from ...repository import Repository
from ..data.mixture import Balance, Draws, shares
from ..data.tokens import Stream, load
from .requests import Request

if TYPE_CHECKING:
    import torch


class Blocks:
    """Item ``i`` is what a training reads ``i``-th, counted from the start of the seed: a dataset for transformers.

    Items before ``first`` were another training's.
    """

    def __init__(self, streams: Sequence[Stream], draws: Draws, size: int, limits: tuple[int, int]) -> None:
        """``size`` is the tokens in a block; ``limits`` are the first item and the number of all."""
        self._streams, self._draws, self._size = streams, draws, size
        self._first, self._count = limits

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        import numpy as np
        import torch

        domain, block = self._draws.item(index - self._first)
        found = self._streams[domain].tokens[block * self._size : (block + 1) * self._size]
        ids = torch.from_numpy(np.asarray(found, np.int64))
        labels = ids.clone()
        labels[0] = -100  # nothing predicts it, and it does not count for the mean
        return {"input_ids": ids, "labels": labels}


def blocks(repository: Repository, request: Request, revision: str, first: int) -> Blocks:
    """The blocks of a training, of the text that a commit has; ``first`` is the item that its own data begin at.

    Raises ``ThetaError`` for a domain that is not there, or has not one full block.
    """
    text, training = request.settings.text, request.settings.training
    streams = [load(repository, domain, "train", text, revision) for domain in request.domains]
    sizes = [stream.blocks(text.block) for stream in streams]
    for domain, size in zip(request.domains, sizes, strict=True):
        if not size:
            raise ThetaError(f"the text of {domain} is shorter than a block of {text.block} tokens: add some to it")
    named = dict(zip(request.domains, sizes, strict=True))
    balance = Balance(weights=request.weights) if request.weights else Balance.parse(request.balance or "equal")
    found = shares(named, balance)
    draws = Draws(training.seed, [found[domain] for domain in request.domains], sizes)
    return Blocks(streams, draws, text.block, (first, training.steps * training.batch))

"""Several processes for one ensemble: each runs some of the experts, and all get all log-probabilities.

They are started by torchrun, or by whatever else sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; a process without
them is alone. Only log-probabilities of the tokens that follow travel, over gloo: never weights or logits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ThetaError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that work together."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that prints."""
        return self.rank == 0

    def gather(self, own: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The arrays of all processes, which have one shape, in the order of their ranks."""
        if self.count == 1:
            return [own]
        import torch
        import torch.distributed

        found = [torch.empty(own.shape) for _ in range(self.count)]
        torch.distributed.all_gather(found, torch.from_numpy(np.array(own)))
        arrays: list[Any] = [item.numpy() for item in found]
        return arrays


@contextmanager
def together() -> Iterator[Ranks]:
    """The processes that were started together, until all are done. Raises ``ThetaError`` if they do not meet."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    import torch.distributed

    try:
        torch.distributed.init_process_group("gloo")
    except (ValueError, RuntimeError) as error:
        raise ThetaError(f"the {count} processes do not meet: {str(error).partition(chr(10))[0]}") from None
    try:
        yield Ranks(torch.distributed.get_rank(), count)
    finally:
        torch.distributed.destroy_process_group()

"""Log-probabilities of many experts over one text: the memory of one model, whatever their number."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..evaluating.cells import Running, Subject, placed
from ..evaluating.losses import log_probs
from .ranks import Ranks

Tokens: TypeAlias = NDArray[np.integer[Any]]

_MEMORY = 256 << 20  # bytes; more than that goes to a file


def windows(tokens: Tokens, block: int, count: int, *, spread: bool) -> Tokens:
    """The tokens of ``count`` windows of a stream: evenly spread over it, or the first; all, if there are no more."""
    full = len(tokens) // block
    if count >= full + bool(len(tokens) % block):
        return tokens
    if not spread:
        return tokens[: count * block]
    chosen = np.linspace(0, full - 1, count).round().astype(int)
    return np.concatenate([tokens[index * block : (index + 1) * block] for index in chosen])


@contextmanager
def gathered(
    subjects: Sequence[Subject], tokens: Tokens, running: Running, place: str, ranks: Ranks
) -> Iterator[NDArray[np.float32]]:
    """``[experts, windows, block - 1]``, until the end of the ``with``; ``place`` is a directory for what is large."""
    shape = (len(subjects), -(-len(tokens) // running.block), running.block - 1)
    if int(np.prod(shape)) * 4 <= _MEMORY:
        found = np.empty(shape, np.float32)
        _fill(found, subjects, tokens, running, ranks)
        yield found
        return
    os.makedirs(place, exist_ok=True)
    with TemporaryDirectory(dir=place) as directory:
        mapped = np.memmap(os.path.join(directory, "log-probs"), np.float32, "w+", shape=shape)
        _fill(mapped, subjects, tokens, running, ranks)
        yield mapped


def _fill(
    found: NDArray[np.float32], subjects: Sequence[Subject], tokens: Tokens, running: Running, ranks: Ranks
) -> None:
    """Each process takes every so-manieth expert, then all exchange what they have."""
    for start in range(0, len(subjects), ranks.count):
        running.meter(start, len(subjects))
        index = start + ranks.rank
        if index < len(subjects):
            own = log_probs(placed(subjects[index].load(), running.device), tokens, running.block)
        else:
            own = np.zeros(found.shape[1:], np.float32)  # a place to keep in step
        for offset, values in enumerate(ranks.gather(own)[: len(subjects) - start]):
            found[start + offset] = values

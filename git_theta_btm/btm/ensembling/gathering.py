"""Log-probabilities of many experts over one text: the memory of one model, whatever their number.

What an expert makes of a text is kept: every kind of ensemble, each prior and each posterior asks for the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...remaking import new_file
from ..evaluating.cells import Running, Subject, placed
from ..evaluating.losses import log_probs
from .ranks import Ranks

Tokens: TypeAlias = NDArray[np.integer[Any]]

_MEMORY = 256 << 20  # bytes; more than that goes to a file
_KEPT = 1 << 30  # bytes of files that are kept; what was used least recently goes first


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
    """``[experts, windows, block - 1]``, until the end of the ``with``; ``place`` is a directory for what is large, and
    for what is kept."""
    reader = _Reader(tokens, running, place)
    shape = (len(subjects), *reader.shape)
    if int(np.prod(shape)) * 4 <= _MEMORY:
        found = np.empty(shape, np.float32)
        _fill(found, subjects, reader, ranks)
        yield found
        return
    os.makedirs(place, exist_ok=True)
    with TemporaryDirectory(dir=place) as directory:
        mapped = np.memmap(os.path.join(directory, "log-probs"), np.float32, "w+", shape=shape)
        _fill(mapped, subjects, reader, ranks)
        yield mapped


class _Reader:
    """What each expert makes of one text: computed, or as it was kept."""

    def __init__(self, tokens: Tokens, running: Running, place: str) -> None:
        self.running = running
        self.shape = (-(-len(tokens) // running.block), running.block - 1)
        self._tokens, self._place = tokens, place
        self._text = sha256(np.ascontiguousarray(tokens).data).hexdigest()

    def read(self, subject: Subject) -> NDArray[np.float32]:
        """``[windows, block - 1]``. Raises ``ThetaError`` as ``log_probs`` does."""
        key = f"{subject.digest} {self._text} {self.running.block} {self.running.device}"
        path = os.path.join(self._place, f"{sha256(key.encode()).hexdigest()}.f32")
        with suppress(OSError, ValueError):  # it is not there, or of another size
            if not self.running.force:
                kept = np.fromfile(path, np.float32).reshape(self.shape)
                os.utime(path)
                return kept
        model = placed(subject.load(), self.running.device)
        found = log_probs(model, self._tokens, self.running.block)
        self._keep(path, found)
        return found

    def _keep(self, path: str, found: NDArray[np.float32]) -> None:
        os.makedirs(self._place, exist_ok=True)
        with new_file(path) as out, open(out, "wb", closefd=False) as file:
            found.tofile(file)
        left = _KEPT
        with os.scandir(self._place) as entries:
            files = [(entry.stat(), entry.path) for entry in entries if entry.name.endswith(".f32")]
        for state, name in sorted(files, key=lambda item: -item[0].st_mtime_ns):
            left -= state.st_size
            if left < 0:
                with suppress(FileNotFoundError):  # another process tidies up too
                    os.unlink(name)


def _fill(found: NDArray[np.float32], subjects: Sequence[Subject], reader: _Reader, ranks: Ranks) -> None:
    """Each process takes every so-manieth expert, then all exchange what they have."""
    for start in range(0, len(subjects), ranks.count):
        reader.running.meter(start, len(subjects))
        index = start + ranks.rank
        spare = np.zeros(found.shape[1:], np.float32)  # of a process that has none, to keep in step
        own = reader.read(subjects[index]) if index < len(subjects) else spare
        for offset, values in enumerate(ranks.gather(own)[: len(subjects) - start]):
            found[start + offset] = values

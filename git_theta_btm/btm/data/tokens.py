"""Texts as tokens: one stream for each split of a domain, made once and mapped into memory from then on.

A stream is its documents in order with the end-of-text token after each. It is cached in the Git directory under the
digests of the text and of the tokenizer, so no change of either can meet a stale stream, and any number of branches and
worktrees share one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from tempfile import mkstemp
from typing import TYPE_CHECKING, Any

from ...errors import ThetaError
from ...repository import Repository
from ...source import BLOCK, Source, write_all
from .. import places
from ..settings import Text
from .documents import documents
from .texts import opened
from .tokenizers import Tokenizer, dtype, identity, tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VERSION = 1  # of what a stream is; raised when the same text would yield other tokens
_DOCUMENTS = 256  # given to the tokenizer at a time
_TYPES = ("<u2", "<i4")


@dataclass(frozen=True, slots=True)
class Stream:
    """Tokens in order, read-only and mapped into memory; ``digest`` names the text and the tokenizer."""

    tokens: NDArray[np.integer[Any]]
    digest: str

    def blocks(self, size: int) -> int:
        """Full blocks of so many tokens; what remains after them is not trained on."""
        return len(self.tokens) // size


def load(repository: Repository, domain: str, split: str, text: Text, revision: str | None = None) -> Stream:
    """The tokens of one split of a domain: of the file in the worktree, or of that in a commit, which is read from the
    store without a checkout. Raises ``ThetaError`` if there is no such file, or it is no text."""
    root = repository.root or repository.git.directory
    with opened(repository, domain, split, revision) as source:
        return stream(source, places.text(domain, split), (root, text.tokenizer), _cache(repository))


def stream(source: Source, name: str, by: tuple[str, str], cache: str) -> Stream:
    """The tokens of a committed file that is called ``name``; ``by`` is the worktree's root and the tokenizer's name,
    ``cache`` a directory. Safe in many processes at once."""
    text = _digest(source)
    digest = sha256(f"{_VERSION}\n{text}\n{identity(*by)}\n".encode()).hexdigest()
    for kind in _TYPES:
        path = _path(cache, digest, kind)
        if os.path.exists(path):
            return Stream(_mapped(path, kind), digest)
    found = tokenizer(*by)
    kind = dtype(found.vocabulary)
    path = _path(cache, digest, kind)
    _write(path, _encoded(_Expected(source, name, text).documents(), found, kind))
    return Stream(_mapped(path, kind), digest)


class _Expected:
    """A source that is read from its start to its end, and has to have a digest."""

    def __init__(self, source: Source, name: str, digest: str) -> None:
        self.size, self._source, self._name, self._digest = source.size, source, name, digest
        self._hash = sha256()

    def read(self, offset: int, size: int) -> bytes:
        data = self._source.read(offset, size)
        self._hash.update(data)
        return data

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

    def documents(self) -> Iterator[str]:
        """All documents. Raises ``ThetaError`` at the end if they are not those that were expected."""
        yield from documents(self, self._name)
        if self._hash.hexdigest() != self._digest:
            raise ThetaError(f"{self._name} changed while it was read")


def _cache(repository: Repository) -> str:
    return places.private(repository.common, "tokens")


def _path(cache: str, digest: str, kind: str) -> str:
    return os.path.join(cache, f"{digest}.{kind.strip('<')}")


def _digest(source: Source) -> str:
    digest = sha256()
    step = 16 * BLOCK
    for start in range(0, source.size, step):
        digest.update(source.read(start, min(step, source.size - start)))
    return digest.hexdigest()


def _encoded(texts: Iterable[str], by: Tokenizer, kind: str) -> Iterator[bytes]:
    """The stream in pieces, each of some documents."""
    import numpy as np

    end = np.array([by.end], kind)
    rest = iter(texts)
    while batch := list(islice(rest, _DOCUMENTS)):
        pieces = [piece for ids in by.encode(batch) for piece in (ids.astype(kind), end)]
        yield np.concatenate(pieces).tobytes()


def _write(path: str, pieces: Iterable[bytes]) -> None:
    """Write a file that is there whole or not at all; whoever is second replaces it by the same bytes."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor, temporary = mkstemp(dir=os.path.dirname(path), prefix="writing-")
    try:
        with open(descriptor, "wb", buffering=0) as file:
            for piece in pieces:
                write_all(file.fileno(), piece)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _mapped(path: str, kind: str) -> NDArray[np.integer[Any]]:
    import numpy as np

    if not os.path.getsize(path):
        return np.empty(0, kind)  # nothing can be mapped
    return np.memmap(path, kind, "r")

"""What text there is: the files of all domains, in the worktree or in a commit, counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from ...repository import Repository
from ...source import BLOCK
from ..places import text
from ..settings import Text
from .documents import documents
from .texts import listed, opened
from .tokens import load


@dataclass(frozen=True, slots=True)
class Holding:
    """One file: its size in bytes, its documents, its tokens with one that ends each document, its SHA-256."""

    domain: str
    split: str
    bytes: int
    documents: int | None = None
    tokens: int | None = None
    digest: str | None = None


def sizes(repository: Repository, revision: str | None = None) -> Iterator[Holding]:
    """Every file of text and its size; none is read. Raises ``ThetaError`` for a revision that is not there."""
    for domain, split in listed(repository, revision):
        with opened(repository, domain, split, revision) as source:
            yield Holding(domain, split, source.size)


def counted(repository: Repository, by: Text, revision: str | None = None) -> Iterator[Holding]:
    """The same, read and tokenised. Raises ``ThetaError`` for a file with a line that is no document."""
    for domain, split in listed(repository, revision):
        with opened(repository, domain, split, revision) as source:
            digest = sha256()
            for start in range(0, source.size, 16 * BLOCK):
                digest.update(source.read(start, min(16 * BLOCK, source.size - start)))
            count = sum(1 for _ in documents(source, text(domain, split)))
            tokens = len(load(repository, domain, split, by, revision).tokens)
            yield Holding(domain, split, source.size, count, tokens, digest.hexdigest())

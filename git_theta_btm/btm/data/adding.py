"""Documents into the files of their domains: each in one split, each once, and none is ever lost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

from ...checkout.worktree import check_filters
from ...errors import ThetaError
from ...repository import Repository
from ..places import SPLITS, private, text
from .committing import replace
from .documents import documents, spell
from .presets import branch, subset
from .reading import Document
from .splitting import identity, split
from .texts import opened, present

_HELD = 1 << 22  # bytes of lines that are held in memory before they are put to disk
_PIECE = 1 << 20  # bytes copied at a time


@dataclass(slots=True)
class Added:
    """How many documents came to which split of which domain; ``duplicates`` were there, ``other`` were not asked for,
    ``bad`` were none."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    duplicates: int = 0
    other: int = 0
    bad: int = 0

    @property
    def domains(self) -> list[str]:
        return sorted({domain for domain, _ in self.counts})

    @property
    def paths(self) -> list[str]:
        """The files that have grown."""
        return [text(domain, part) for domain, part in sorted(self.counts)]


def add(repository: Repository, found: Iterable[Document], domain: str | None, parts: Mapping[str, float]) -> Added:
    """Add documents to ``domain``, those alone if they say which domain they are of; without one, each to its own.

    A document that is in a split of its domain already stays there. Files change only when all documents were read;
    they are neither staged nor committed. Raises what the documents raise, ``ThetaError`` without the filters.
    """
    check_filters(repository)
    added = Added()
    name = None if domain is None else branch(domain)
    wanted = None if domain is None else subset(domain)
    known: dict[str, set[bytes]] = {}
    with Spool(repository) as spool:
        for document in found:
            own = name
            if document.domain and (own is None or subset(document.domain) != wanted):
                if own is not None:
                    added.other += 1
                    continue
                own = subset(document.domain)
            if own is None:
                raise ThetaError("these documents say no domain: name it, or the field that does by --domain-field")
            _place(repository, document.text, own, (parts, known, added, spool))
        for place in added.counts:
            spool.append(*place)
    return added


_State = tuple[Mapping[str, float], dict[str, set[bytes]], Added, "Spool"]


def _place(repository: Repository, content: str, domain: str, state: _State) -> None:
    parts, known, added, spool = state
    if domain not in known:
        known[domain] = identities(repository, domain)
    digest = identity(content)
    if digest in known[domain]:
        added.duplicates += 1
        return
    known[domain].add(digest)
    part = split(digest, parts)
    added.counts[domain, part] += 1
    spool.put(domain, part, spell(content))


def identities(repository: Repository, domain: str) -> set[bytes]:
    """What stands for each document that a domain has in the worktree, in any split."""
    return {identity(content) for _, content in everything(repository, domain)}


def everything(repository: Repository, domain: str) -> Iterator[tuple[str, str]]:
    """The documents of a domain in the worktree, each with the split that it is in."""
    for part in SPLITS:
        if present(repository, domain, part):
            with opened(repository, domain, part) as source:
                yield from ((part, content) for content in documents(source, text(domain, part)))


def resplit(repository: Repository, domain: str, parts: Mapping[str, float]) -> Added:
    """Divide a domain anew, by other parts. Raises ``ThetaError`` if it has no document."""
    check_filters(repository)
    added, known = Added(), {domain: set[bytes]()}
    with Spool(repository) as spool:
        for _, content in everything(repository, domain):
            _place(repository, content, domain, (parts, known, added, spool))
        if not added.counts:
            raise ThetaError(f"there is no text of {domain!r}: 'git btm data ls' lists all")
        for part in SPLITS:
            if present(repository, domain, part) or added.counts[domain, part]:
                replace(repository.absolute(text(domain, part)), spool.lines(domain, part))
    return added


class Spool:
    """New lines of many files, on disk until all are there."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._held: dict[tuple[str, str], list[bytes]] = {}
        self._size = 0

    def __enter__(self) -> Spool:
        place = private(self._repository.common, "spool")
        os.makedirs(place, exist_ok=True)
        self._directory = TemporaryDirectory(dir=place)
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def put(self, domain: str, part: str, line: bytes) -> None:
        """A line for a file."""
        self._held.setdefault((domain, part), []).append(line)
        self._size += len(line)
        if self._size > _HELD:
            self._flush()

    def _flush(self) -> None:
        for place, held in self._held.items():
            with open(self._path(*place), "ab") as file:
                file.writelines(held)
        self._held, self._size = {}, 0

    def _path(self, domain: str, part: str) -> str:
        return os.path.join(self._directory.name, f"{domain}@{part}")

    def lines(self, domain: str, part: str) -> Iterator[bytes]:
        """What was put, in pieces of some length."""
        self._flush()
        if os.path.exists(self._path(domain, part)):
            with open(self._path(domain, part), "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece

    def append(self, domain: str, part: str) -> None:
        """Put the lines at the end of the file in the worktree; it changes at once, or not at all."""
        replace(self._repository.absolute(text(domain, part)), self._grown(domain, part))

    def _grown(self, domain: str, part: str) -> Iterator[bytes]:
        if present(self._repository, domain, part):
            with opened(self._repository, domain, part) as source:
                last = b""
                for start in range(0, source.size, _PIECE):
                    last = source.read(start, min(_PIECE, source.size - start))
                    yield last
                if last and not last.endswith(b"\n"):
                    yield b"\n"
        yield from self.lines(domain, part)

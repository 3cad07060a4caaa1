"""A domain's text with general text: what an expert reads so that it learns the one and does not forget the other.

``train`` stays what it is, and ``train_mix`` has it with general text, in a random order; ``valid`` and ``test`` stay
the domain's own, and ``valid_general`` and ``test_general`` say what became of the rest.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from math import floor

from ...checkout.worktree import check_filters
from ...errors import ThetaError, UsageError
from ...repository import Repository
from ...source import Source
from ..places import SPLITS, text
from .adding import identities
from .committing import replace
from .documents import rows
from .splitting import identity
from .texts import listed, opened, present

MIX = "train_mix"
_Row = tuple[bytes, str, int, int]  # place in the random order, domain, offset and length of the line


@dataclass(frozen=True, slots=True)
class General:
    """General text: so many documents for each of the domain's, from the domains ``of`` (all, if none is named),
    without the domain's own documents if ``exclude`` is set; ``seed`` decides which."""

    ratio: float = 1.0
    of: tuple[str, ...] = ()
    exclude: bool = False
    seed: int = 0


def mix(repository: Repository, domain: str, general: General) -> dict[str, int]:
    """Write the mixture of a domain; returns the documents of each file. The same text and seed give the same bytes.

    Raises ``ThetaError``, and writes nothing, if the domain has no text, or there is not enough of the general.
    """
    check_filters(repository)
    if not 0 <= general.ratio < float("inf"):
        raise UsageError(f"there cannot be {general.ratio:g} general documents for one of the domain: it is at least 0")
    if not present(repository, domain, "train"):
        raise ThetaError(f"there is no {text(domain, 'train')}: 'git btm data add {domain} FILE...' adds it")
    sources = [name for name in general.of or _domains(repository) if not (general.exclude and name == domain)]
    barred = identities(repository, domain) if general.exclude else set[bytes]()
    with ExitStack() as stack:
        picks = {part: _pick(repository, domain, (part, sources, barred, general), stack) for part in SPLITS}
        for part, (own, others, files) in picks.items():
            if own or others:
                chosen = sorted([*own, *others]) if part == "train" else others
                replace(repository.absolute(text(domain, _file(part))), _read(chosen, files))
    return {
        _file(part): len(others) + (len(own) if part == "train" else 0)
        for part, (own, others, _) in picks.items()
        if own or others
    }


def _file(part: str) -> str:
    return MIX if part == "train" else f"{part}_general"


def _domains(repository: Repository) -> list[str]:
    return sorted({name for name, _ in listed(repository)})


_Wanted = tuple[str, Sequence[str], set[bytes], General]
_Picked = tuple[list[_Row], list[_Row], dict[str, Source]]


def _pick(repository: Repository, domain: str, wanted: _Wanted, stack: ExitStack) -> _Picked:
    """The domain's rows of a split, the general ones for it, and the open files that they are in."""
    part, sources, barred, general = wanted
    files = {
        name: stack.enter_context(opened(repository, name, part))
        for name in {*sources, domain}
        if present(repository, name, part)
    }
    own = list(_rows(domain, part, files, general.seed))
    count = round(general.ratio * len(own))
    found = [row for name in sources for row in _rows(name, part, files, general.seed, barred)]
    if len(found) < count:
        raise ThetaError(
            f"there are {len(found)} general documents in {part}, and {count} are needed: "
            f"add text, or take --general-ratio {floor(100 * len(found) / len(own)) / 100:g}"
        )
    return own, sorted(found)[:count], files


def _rows(name: str, part: str, files: dict[str, Source], seed: int, barred: Container[bytes] = ()) -> Iterator[_Row]:
    """The rows of a file, if there is one, but for the texts that are barred."""
    key = seed.to_bytes(8, "big", signed=True)
    for row in rows(files[name], text(name, part)) if name in files else ():
        if not barred or identity(row.text) not in barred:
            yield blake2b(row.line, digest_size=16, key=key).digest(), name, row.offset, len(row.line)


def _read(chosen: Sequence[_Row], files: dict[str, Source]) -> Iterator[bytes]:
    for _, name, offset, size in chosen:
        yield files[name].read(offset, size) + b"\n"

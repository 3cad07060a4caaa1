"""Globs that match no parameter: a rule with a slip of the pen changes nothing, and nobody would notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..manifest import Manifest
from .drafts import Draft, unused

_LITERAL = re.compile(r"[^*?\[\]!.]{2,}")
_SHOWN = 80
_SLIP = 2  # letters too few or too many: layernorm is not meant to be layers
_WORD = 4


def warnings(draft: Draft, models: Iterable[Manifest]) -> tuple[str, ...]:
    """What a user should know of a draft, a line each: what has no effect, and globs that match nothing in the models
    of a merge."""
    names = list(dict.fromkeys(entry.name for model in models for entry in model.entries))
    lines = list(draft.notes)
    for place, glob in unused(draft, names):
        meant = nearest(glob, names)
        hint = f"; did you mean {meant[:_SHOWN]!r}?" if meant else ""
        lines.append(f"{place} {glob[:_SHOWN]!r} matches no parameter{hint}")
    return tuple(lines)


def nearest(glob: str, names: Sequence[str]) -> str:
    """A glob like this one that does match, or else the name that is most like it; empty if nothing is."""
    for other in _likely(glob, names):
        if any(fnmatchcase(name, other) for name in names):
            return other
    return next(iter(get_close_matches(glob.strip("*."), names, 1)), "")


def _likely(glob: str, names: Sequence[str]) -> Iterator[str]:
    """The same without its ends, then with one of its words in the place of another that names have."""
    core = glob.strip("*.")
    if core:
        yield f"*{core}*"
    words: dict[str, dict[str, None]] = {}  # by themselves, and by what an underscore parts
    for part in dict.fromkeys(part for name in names for part in name.split(".") if not part.isdigit()):
        for piece in (part, *part.split("_")):
            words.setdefault(piece.lower(), {})[part] = None
    for word in _LITERAL.findall(glob):
        for piece in _like(word.lower(), list(words)):
            for part in words[piece]:
                yield glob.replace(word, part)


def _like(word: str, pieces: Sequence[str]) -> Iterator[str]:
    """What a slip of the pen makes of a word, then what begins or ends as it does."""
    yield from (piece for piece in get_close_matches(word, pieces) if abs(len(piece) - len(word)) <= _SLIP)
    for piece in pieces:
        short, long = sorted((piece, word), key=len)
        if len(short) >= _WORD and (long.startswith(short) or long.endswith(short)):
            yield piece

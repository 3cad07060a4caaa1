"""Messages of commits: where trailers stand in them, and which are ours. Reference: git-interpret-trailers(1).

A hook begins here, so nothing is imported that takes time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import AnyStr

OF_FILE = {"Merge": "File", "Rule": "File-Rule", "Exclude": "File-Exclude"}
WHOLE = ("File-Taken", "File-Manual")
KEYS = ("Merge", "Rule", "Exclude", *OF_FILE.values(), *WHOLE, "Expert", "Base", "Version")
LINE = re.compile(rf"Theta-({'|'.join(KEYS)})[ \t]*:(.*)")
_TRAILER = re.compile(r"[A-Za-z0-9-]+[ \t]*:")
_FOLD = re.compile(r"\n[ \t]+")
_GIT = ("Signed-off-by: ", "(cherry picked from commit ")  # by which git knows a block that has other lines too
_SCISSORS = " ------------------------ >8 ------------------------"


def lines_from(message: str, first: re.Pattern[str]) -> list[str]:
    """The lines from the last paragraph that has one which matches ``first``, each with those that continue it; none if
    there is no such paragraph but the title.

    That is the last paragraph as Git's tools leave a message. Hooks add text below it, and people do.
    """
    lines = message.replace("\r\n", "\n").split("\n")
    lines = lines[: _scissors(lines, "#")]
    filled = [bool(line.strip()) for line in lines]
    starts = [place for place, (before, this) in enumerate(pairwise([False, *filled])) if this and not before]
    for start, end in reversed(list(pairwise([*starts, len(lines)]))[1:]):
        if any(map(first.match, lines[start:end])):
            return _FOLD.sub(" ", "\n".join(lines[start:])).split("\n")
    return []


def append(message: AnyStr, lines: Sequence[str], comment: str = "#") -> AnyStr:
    """A commit's message with these lines as its record, in the place of an earlier one; none: without that."""
    if isinstance(message, bytes):
        return append(message.decode(errors="surrogateescape"), lines, comment).encode(errors="surrogateescape")
    if not lines and not any(map(LINE.match, message.split("\n"))):
        return message
    return insert(message, lines, LINE, comment)


def insert(message: str, lines: Sequence[str], ours: re.Pattern[str], comment: str = "#") -> str:
    """A message with these trailers where ``git interpret-trailers`` would add them, before comments at the end; those
    that match ``ours`` are replaced, wherever they stand below the title."""
    head, paragraph, tail = _split(message, comment)
    if not _is_block(paragraph, ours, comment):
        head, paragraph = [*head, *paragraph, ""], []
    return "\n".join([*_cleared(head, ours), *_others(paragraph, ours), *lines, *(tail or [""])])


def _cleared(lines: Sequence[str], ours: re.Pattern[str]) -> list[str]:
    """The lines without those that are ours, and without the gaps that they leave; the title stays."""
    first = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    end = next((place for place in range(first, len(lines)) if not lines[place].strip()), len(lines))
    found, dropped, gap = list(lines[:end]), False, False
    for line in lines[end:]:
        dropped = bool(ours.match(line)) or (dropped and line.startswith((" ", "\t")))
        gap = dropped or (gap and not line.strip())
        if not dropped and not (gap and found and not found[-1].strip()):
            found.append(line)
    return found


def _split(message: str, comment: str) -> tuple[list[str], list[str], list[str]]:
    """The lines of a message: all but the last paragraph, that unless it is the title, and the comments at the end."""
    lines = message.split("\n")
    end = _scissors(lines, comment)
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith(comment)):
        end -= 1
    start = next((place for place in range(end, 0, -1) if not lines[place - 1].strip()), end)
    return lines[:start], lines[start:end], lines[end:]


def _scissors(lines: Sequence[str], comment: str) -> int:
    """Where the part starts that no commit keeps."""
    return next((place for place, line in enumerate(lines) if line == comment + _SCISSORS), len(lines))


def _is_block(lines: Sequence[str], ours: re.Pattern[str], comment: str) -> bool:
    """Whether a paragraph is one of trailers, as Git counts: all of it, or a quarter, if one is of Git's own."""
    counted = [line for line in lines if not line.startswith((comment, " ", "\t"))]
    trailers = [line for line in counted if _TRAILER.match(line) or line.startswith(_GIT)]
    known = any(line.startswith(_GIT) or ours.match(line) for line in trailers)
    others = len(counted) - len(trailers)
    return bool(trailers) and (not others or (known and len(trailers) * 3 >= others))


def _others(lines: Sequence[str], ours: re.Pattern[str]) -> list[str]:
    """The lines of a block that are not ours, nor continue such a line."""
    kept, dropped = [], False
    for line in lines:
        dropped = bool(ours.match(line)) or (dropped and line.startswith((" ", "\t")))
        if not dropped:
            kept.append(line)
    return kept

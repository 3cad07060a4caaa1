"""Messages of commits: where trailers stand in them. Reference: git-interpret-trailers(1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TRAILER = re.compile(r"[A-Za-z0-9-]+[ \t]*:")
_FOLD = re.compile(r"\n[ \t]+")
_GIT = ("Signed-off-by: ", "(cherry picked from commit ")  # by which git knows a block that has other lines too
_SCISSORS = " ------------------------ >8 ------------------------"


def last_lines(message: str) -> list[str]:
    """The lines of the last paragraph, unless it is the title; each with those that continue it."""
    paragraph = _split(message.replace("\r\n", "\n"), "#")[1]
    return _FOLD.sub(" ", "\n".join(paragraph)).split("\n")


def insert(message: str, lines: Sequence[str], ours: re.Pattern[str], comment: str = "#") -> str:
    """A message with these trailers where ``git interpret-trailers`` would add them, before comments at the end; those
    that match ``ours`` are replaced."""
    head, paragraph, tail = _split(message, comment)
    if not _is_block(paragraph, ours, comment):
        head, paragraph = [*head, *paragraph, ""], []
    return "\n".join([*head, *_others(paragraph, ours), *lines, *(tail or [""])])


def _split(message: str, comment: str) -> tuple[list[str], list[str], list[str]]:
    """The lines of a message: all but the last paragraph, that unless it is the title, and the comments at the end."""
    lines = message.split("\n")
    end = next((place for place, line in enumerate(lines) if line == comment + _SCISSORS), len(lines))
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith(comment)):
        end -= 1
    start = next((place for place in range(end, 0, -1) if not lines[place - 1].strip()), end)
    return lines[:start], lines[start:end], lines[end:]


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

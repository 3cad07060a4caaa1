"""Vocabularies: which row of one model's embedding stands for the token of which row of another's.

Read are ``tokenizer.json`` of Hugging Face's tokenizers (BPE, WordPiece and WordLevel have a mapping, Unigram a list;
added tokens beside it) and ``vocab.json``, a mapping of tokens to rows. Rows are matched by the tokens' text; rows that
belong to no token, which pad a table to a round size, by their number.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ThetaError
from .resolve import Rows


def rows(ours: bytes, theirs: bytes, tables: tuple[int, int] | None = None) -> Rows:
    """Where the rows of the first model's tables are in the second's, by their tokenizer files.

    ``tables`` are the numbers of rows of both, if they have more than the vocabularies have tokens. Raises
    ``ThetaError`` for a file that is no tokenizer, or has a token beyond its table.
    """
    first, second = _tokens(ours, "our tokenizer"), _tokens(theirs, "their tokenizer")
    heights = tables or (_height(first, len(ours), "our tokenizer"), _height(second, len(theirs), "their tokenizer"))
    for tokens, height, place in zip((first, second), heights, ("our", "their"), strict=True):
        if tokens and max(tokens.values()) >= height:
            raise ThetaError(f"{place} tokenizer has a token for row {max(tokens.values())} of a table of {height}")
    places: list[int | None] = [None] * heights[0]
    used, taken = set(first.values()), set(second.values())
    for row in range(min(heights)):
        if row not in used and row not in taken:
            places[row] = row
    for token, row in first.items():
        if places[row] is None:
            places[row] = second.get(token)
    return Rows(heights[1], tuple(places))


def _height(tokens: dict[str, int], size: int, place: str) -> int:
    """The rows that a vocabulary needs. A token takes several bytes of its file: no honest row is beyond them."""
    height = max(tokens.values(), default=-1) + 1
    if height > size:
        raise ThetaError(f"{place} has a token for row {height - 1}, and {len(tokens)} in all")
    return height


def _tokens(data: bytes, place: str) -> dict[str, int]:
    """The row of each token."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ThetaError(f"{place} is no JSON") from None
    if not isinstance(document, dict):
        raise ThetaError(f"{place} is no mapping")
    if not isinstance(document.get("model"), dict):
        return _checked(document, place)
    vocabulary, added = document["model"].get("vocab"), document.get("added_tokens") or []
    if isinstance(vocabulary, list):
        vocabulary = _listed(vocabulary, place)
    if not isinstance(vocabulary, dict) or not isinstance(added, list):
        raise ThetaError(f"{place} has no vocabulary")
    if not all(isinstance(item, dict) and isinstance(item.get("content"), str) for item in added):
        raise ThetaError(f"{place} has an added token without a text")
    return _checked({**{item["content"]: item.get("id") for item in added}, **vocabulary}, place)


def _listed(vocabulary: list[Any], place: str) -> dict[str, int]:
    """Unigram's pairs of a token and its score, in the order of the rows."""
    if not all(isinstance(item, list) and item and isinstance(item[0], str) for item in vocabulary):
        raise ThetaError(f"{place} has a token without a text")
    return {item[0]: row for row, item in reversed(list(enumerate(vocabulary)))}


def _checked(tokens: dict[str, Any], place: str) -> dict[str, int]:
    for token, row in tokens.items():
        if not isinstance(row, int) or isinstance(row, bool) or row < 0:
            raise ThetaError(f"{place} has no row for the token {token[:40]!a}")
    return tokens

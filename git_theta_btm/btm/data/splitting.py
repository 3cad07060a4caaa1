"""Which split a document belongs to: decided by its own text, so that no order and no other document has a say."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from math import isfinite

from ...errors import UsageError
from ..places import SPLITS

DEFAULT = "90,5,5"


def identity(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return sha256(text.encode()).digest()[:16]


def parse(text: str) -> dict[str, float]:
    """Parts of train, valid and test, as ``90,5,5`` has them. Raises ``UsageError``."""
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) != len(SPLITS) or not all(isfinite(part) and part >= 0 for part in parts) or not sum(parts):
        raise UsageError(f"splits are like {DEFAULT}, parts of {', '.join(SPLITS)}: not {text!r}")
    return dict(zip(SPLITS, parts, strict=True))


def split(digest: bytes, parts: Mapping[str, float]) -> str:
    """The split of a text with this identity."""
    place = int.from_bytes(digest[:8], "big") / 2**64 * sum(parts.values())
    for name, part in parts.items():
        if place < part:
            return name
        place -= part
    return max(parts, key=lambda name: parts[name])  # where rounding led past the end

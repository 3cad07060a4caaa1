"""Layers: which part of a model a parameter belongs to, by its name alone."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(?:^|[./])(\d{1,9})(?=[./]|$)")


def layer(name: str) -> tuple[str, int] | None:
    """The name up to its first number, and that number: ``("transformer.h", 3)`` of ``transformer.h.3.mlp.weight``;
    None of what is in no layer."""
    found = _NUMBER.search(name)
    return (name[: found.start()], int(found[1])) if found else None


def prefix(name: str) -> str:
    """The name of the layer, ``transformer.h.3``; of what is in no layer the module, which is all but the last word."""
    found = _NUMBER.search(name)
    return name[: found.end()] if found else name.rpartition(".")[0] or name

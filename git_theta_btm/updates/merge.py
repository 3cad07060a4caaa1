"""Merge: the tensor is what a merge strategy makes of others; what it measured is part of the object.

Only strategies of this package that are exact: their formulas stay what they are for ever, under their version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CorruptObject, ObjectError, UsageError
from ..floats import TILE, narrow, widen
from ..merges import BUILT_IN, Measures, Strategy, Tile, make
from ..planes import TYPES, Values
from ..source import Source
from . import Span


def predict(span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> Values:
    """What the strategy combines from ``bases``: the tips, and after them the base if there is one.

    Parameters: ``strategy``, ``version``, ``options``, ``dtype``, ``has_base``, for each tip one of ``keys`` (16 bytes,
    hexadecimal) and of ``weights``, and ``measures``: names with lists of numbers. Numbers are hexadecimal floats.
    """
    strategy = _strategy(parameters)
    weights = tuple(map(float.fromhex, parameters["weights"]))
    keys = tuple(map(bytes.fromhex, parameters["keys"]))
    measures = {name: tuple(map(float.fromhex, numbers)) for name, numbers in parameters["measures"].items()}
    count = len(bases) - bool(parameters["has_base"])
    if not count or not len(weights) == len(keys) == count or any(len(key) != 16 for key in keys):
        raise CorruptObject(f"{len(weights)} weights and {len(keys)} keys for {count} tensors")
    dtype, width = parameters["dtype"], TYPES[span.width]
    patterns = [np.frombuffer(base.read(span.offset, span.size), width) for base in bases]
    result = np.empty(span.count, width)
    start = span.offset // span.width
    with np.errstate(all="ignore"):
        for at in range(0, span.count, TILE):
            tiles = tuple(widen(values[at : at + TILE], dtype) for values in patterns)
            base = tiles[count] if len(tiles) > count else None
            tile = Tile(tiles[:count], weights, base, start + at, keys)
            result[at : at + TILE] = narrow(strategy.combine(tile, measures), dtype)
    return result


def parameters(name: str, strategy: Strategy, measures: Measures) -> dict[str, Any]:
    """The part of the parameters that tells a strategy."""
    from dataclasses import asdict

    options = {option.rstrip("_"): _spell(value) for option, value in asdict(strategy).items()}
    found = {key: [float(number).hex() for number in numbers] for key, numbers in measures.items()}
    return {"strategy": name, "version": strategy.version, "options": options, "measures": found}


def _spell(value: Any) -> Any:
    if isinstance(value, tuple):
        return [number.hex() for number in value]
    return value.hex() if isinstance(value, float) else value


def _strategy(parameters: Mapping[str, Any]) -> Strategy:
    name = parameters["strategy"]
    if name not in BUILT_IN:
        raise ObjectError(f"a merge by {str(name)[:40]!r} needs a newer git-theta-btm")
    options = {option: _read(value) for option, value in parameters["options"].items()}
    try:
        strategy = make(name, options)
    except UsageError as error:
        raise CorruptObject(f"a merge with impossible options: {error}") from None
    if strategy.version != parameters["version"] or not strategy.exact:
        raise ObjectError(f"a merge by another version of {name} needs another git-theta-btm")
    return strategy


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(float.fromhex, value))
    if isinstance(value, str) and "0x" in value:
        return float.fromhex(value)
    return value

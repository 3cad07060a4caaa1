"""Merge: the tensor is what a merge strategy makes of others; what it measured is part of the object.

Only strategies of this package that are exact: their formulas stay what they are for ever, under their version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ..errors import CorruptObject, ObjectError, ThetaError, UsageError
from ..floats import TILE, narrow, widen
from ..merges import BUILT_IN, Measures, Strategy, Tile, make, spelled
from ..planes import TYPES, Values
from ..source import Source, view
from . import Span


def predict(span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> Values:
    """What the strategy combines from ``bases``: the tips, and after them the base if there is one.

    Parameters: ``strategy``, ``version``, ``options``, ``dtype``, ``has_base``, for each tip one of ``keys`` (16 bytes,
    hexadecimal) and of ``weights``, and ``measures``: names with lists of numbers. Numbers are hexadecimal floats.
    """
    strategy = _strategy(parameters)
    try:
        weights = tuple(map(float.fromhex, parameters["weights"]))
        keys = tuple(map(bytes.fromhex, parameters["keys"]))
        measures = {name: tuple(map(float.fromhex, numbers)) for name, numbers in parameters["measures"].items()}
        dtype, width, has_base = parameters["dtype"], TYPES[span.width], bool(parameters["has_base"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptObject(f"a merge with impossible parameters: {error}"[:200]) from None
    count = len(bases) - has_base
    if count < 1 or not len(weights) == len(keys) == count or any(len(key) != 16 for key in keys):
        raise CorruptObject(f"{len(weights)} weights and {len(keys)} keys for {count} tensors")
    patterns = [np.frombuffer(view(base, span.offset, span.size), width) for base in bases]
    result = np.empty(span.count, width)
    start = span.offset // span.width
    with np.errstate(all="ignore"):
        for at in range(0, span.count, TILE):
            tiles = tuple(widen(values[at : at + TILE], dtype) for values in patterns)
            tile = Tile(tiles[:count], weights, tiles[count] if has_base else None, start + at, keys)
            result[at : at + TILE] = narrow(_combined(strategy, tile, measures), dtype)
    return result


def _combined(strategy: Strategy, tile: Tile, measures: Measures) -> Any:
    try:
        return strategy.combine(tile, measures)
    except (ThetaError, LookupError, ValueError, TypeError) as error:
        raise CorruptObject(f"a merge that cannot be repeated: {error}"[:200]) from None


def parameters(name: str, strategy: Strategy, measures: Measures) -> dict[str, Any]:
    """The part of the parameters that tells a strategy."""
    options = {spelled(option): _spell(value) for option, value in asdict(strategy).items()}
    found = {key: [float(number).hex() for number in numbers] for key, numbers in measures.items()}
    return {"strategy": name, "version": strategy.version, "options": options, "measures": found}


def _spell(value: Any) -> Any:
    if isinstance(value, tuple):
        return [number.hex() for number in value]
    return value.hex() if isinstance(value, float) else value


def _strategy(parameters: Mapping[str, Any]) -> Strategy:
    if missing := {"strategy", "version", "options"} - set(parameters):
        raise CorruptObject(f"a merge that does not say its {min(missing)}")
    name, options = parameters["strategy"], parameters["options"]
    if not isinstance(name, str) or name not in BUILT_IN:
        raise ObjectError(f"a merge by {str(name)[:40]!r} needs a newer git-theta-btm")
    try:
        strategy = make(name, {option: _read(value) for option, value in options.items()})
    except (UsageError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptObject(f"a merge with impossible options: {error}"[:200]) from None
    if {spelled(item.name) for item in fields(strategy)} != set(options):
        raise CorruptObject("a merge that does not say all its options")  # another default would be another tensor
    computes = type(strategy).combine is not Strategy.combine
    pointwise = computes and strategy.exact and not strategy.whole and not strategy.statistics
    if strategy.version != parameters["version"] or not pointwise:
        raise ObjectError(f"a merge by another version of {name} needs another git-theta-btm")
    return strategy


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(float.fromhex, value))
    if isinstance(value, str) and "0x" in value:
        return float.fromhex(value)
    return value

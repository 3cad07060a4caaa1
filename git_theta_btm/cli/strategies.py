"""How strategies are listed."""

from __future__ import annotations

import dataclasses

from ..merging.listing import Listed, Option, strategies, strategy
from .console import columns, data, dump, printable


def listed(*, as_json: bool) -> int:
    """Print all strategies, each with its options."""
    found = strategies()
    if as_json:
        dump(strategies=[_fields(item) for item in found])
        return 0
    for item in found:
        data(f"{item.name}: {printable(item.text)}{_needs(item)}")
        for line in columns([_row(option) for option in item.options]):
            data(f"    {line}")
    return 0


def describe(name: str, *, as_json: bool) -> int:
    """Print all that is known about one strategy. Raises ``UsageError`` if there is none of that name."""
    item = strategy(name)
    if as_json:
        dump(**_fields(item))
        return 0
    data(f"{item.name}: {printable(item.text)}{_needs(item)}")
    data("")
    for line in item.source.split("\n"):
        data(printable(line))
    if item.options:
        data("")
        for line in columns([_row(option) for option in item.options]):
            data(line)
    return 0


def _needs(item: Listed) -> str:
    parts = [*(f"needs {need}" for need in item.needs), *([] if item.exact else ["not bit-exact"])]
    return f" ({', '.join(parts)})" if parts else ""


def _row(option: Option) -> tuple[str, str]:
    limits = f" ({option.range})" if option.range else ""
    return f"-o {option.name}={_value(option.default)}", printable(f"{option.text}{limits}")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_value, value)) if isinstance(value, tuple) else str(value)


def _fields(item: Listed) -> dict[str, object]:
    return dataclasses.asdict(item)

"""What a pickle says, as values that can be looked at and do nothing.

``None``, booleans, numbers, ``str``, ``bytes``, ``tuple`` and ``list`` (also for sets) stand for themselves. Containers
can be shared, nested to any depth and, through ``list``, ``Pairs`` and ``Call``, contain themselves: never compare,
hash or print them, and never walk them by recursion.
"""

from __future__ import annotations

from dataclasses import dataclass

Value = object


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class, function or constant. Nothing ever looks it up."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Bulk:
    """A string too long to keep: where in the file it stands, and how many bytes it has."""

    offset: int
    size: int


class Pairs(list[Value]):
    """A dictionary as a flat list: key, value, key, value. Keys are not hashed: a nested key could take forever."""

    __slots__ = ()


class PersistentId:
    """A reference to something outside the pickle; ``value`` says what."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value = value


class Call:
    """An object that unpickling would make by ``function(*args, **kwargs)``.

    ``items`` and ``pairs`` are what would be appended to it or set in it, ``state`` is what it would be restored from.
    """

    __slots__ = ("args", "function", "items", "kwargs", "pairs", "state")

    def __init__(self, function: Value, args: tuple[Value, ...], kwargs: Pairs | None = None) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.items: list[Value] | None = None
        self.pairs: Pairs | None = None
        self.state: Value = None

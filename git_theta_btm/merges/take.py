"""Take: one model's parameter as it is. Nothing is read or computed, and nothing is stored that was not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours(Strategy):
    """The first model's: that of the branch that is merged into."""

    ordered: ClassVar[bool] = True

    def choice(self, count: int) -> int | None:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs(Strategy):
    """The second of two models': that of the branch that is merged."""

    ordered: ClassVar[bool] = True
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    def choice(self, count: int) -> int | None:
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Base(Strategy):
    """The common ancestor's, as if nobody had trained it."""

    needs_base: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False

    def choice(self, count: int) -> int | None:
        return -1

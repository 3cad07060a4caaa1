"""Passthrough: one model's parameter times a number, ``scale * tip``: to quieten or to amplify a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import Coefficients, Linear, Sides, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Passthrough(Linear):
    """The only model, times a number."""

    looks: ClassVar[bool] = False
    idempotent: ClassVar[bool] = False
    most: ClassVar[int | None] = 1

    scale: float = option(1.0, "what to multiply by")

    def choice(self, count: int) -> int | None:
        return 0 if self.scale == 1 else None

    def coefficients(self, sides: Sides) -> Coefficients:
        return Coefficients((self.scale,))

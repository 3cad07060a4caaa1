"""Updates: how a tensor is stored in terms of others.

An update is a module with one pure function, ``predict``: from the bytes of its bases and a few parameters it computes
bit patterns that come close to the tensor's. What differs is stored as a residual, so every update is exact, and one
whose prediction is right stores next to nothing. Predictions must be the same bits on every machine, in every thread,
for ever: elementwise IEEE operations in a fixed order, no fused multiply-add, no BLAS, no reductions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from ..errors import ObjectError
from ..planes import Values
from ..source import Source

BUILT_IN = ("dense", "delta", "low_rank", "ia3", "linear", "merge")
GROUP = "git_theta_btm.updates"


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a tensor to predict: ``size`` bytes from ``offset``, as elements of ``width`` bytes."""

    offset: int
    size: int
    width: int

    @property
    def count(self) -> int:
        return self.size // self.width


class Update(Protocol):
    """What an update module must have."""

    def predict(self, span: Span, bases: Sequence[Source], parameters: Mapping[str, Any]) -> Values | None:
        """``span.count`` bit patterns, or None for no prediction.

        Raises ``CorruptObject`` for parameters or bases that make no sense; must not keep or change what it is given.
        """


def load(kind: str) -> Update:
    """The update module of this name: a built-in, else one that an installed package provides as an entry point.

    Raises ``ObjectError`` if there is none.
    """
    if kind in BUILT_IN:
        built_in: Update = import_module(f".{kind}", __name__)
        return built_in
    from importlib.metadata import entry_points  # 70 ms that only a plug-in has to pay

    try:
        for point in entry_points(group=GROUP, name=kind):
            plug_in: Update = point.load()
            return plug_in
    except (ImportError, AttributeError) as error:
        raise ObjectError(f"the plug-in for objects of kind {kind[:40]!r} is broken: {error}") from None
    raise ObjectError(f"objects of kind {kind[:40]!r} need a newer git-theta-btm, or a plug-in that is not installed")

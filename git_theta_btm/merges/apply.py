"""Apply: ``ours + (theirs - base)``, what theirs learned since the base put on top of ours.

A cherry-pick, a rebase and a revert, read as arithmetic of task vectors: Ilharco et al., "Editing models with task
arithmetic", arXiv:2212.04089. What only one side changed is that side's, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import Coefficients, Linear, Sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply(Linear):
    """Both sides' changes since the base, added up: what cherry-pick, rebase and revert do."""

    looks: ClassVar[bool] = False
    needs_base: ClassVar[bool] = True
    one_sided: ClassVar[bool] = True
    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    def coefficients(self, sides: Sides) -> Coefficients:
        return Coefficients((1.0, 1.0), base=-1.0)

"""What differs between two versions of a model, parameter by parameter, from their manifests alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .manifest import Entry, Manifest, order

Kind = Literal["added", "removed", "changed", "same"]


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter's two sides; true if they differ. How a parameter is stored does not count."""

    old: Entry | None
    new: Entry | None

    @property
    def name(self) -> str:
        side = self.new or self.old
        return side.name if side else ""

    @property
    def kind(self) -> Kind:
        if self.old is None or self.new is None:
            return "same" if self.old is self.new else "added" if self.new else "removed"
        same = (self.old.tensor, self.old.digest) == (self.new.tensor, self.new.digest)
        return "same" if same else "changed"

    def __bool__(self) -> bool:
        return self.kind != "same"


def diff(old: Manifest | None, new: Manifest | None) -> list[Change]:
    """The parameters that differ, in natural order of their names; a missing side has no parameters."""
    before, after = _by_name(old), _by_name(new)
    names = sorted(before.keys() | after.keys(), key=order)
    return [change for change in (Change(before.get(name), after.get(name)) for name in names) if change]


def _by_name(manifest: Manifest | None) -> dict[str, Entry]:
    return {entry.name: entry for entry in manifest.entries} if manifest else {}


def count(changes: Iterable[Change]) -> dict[str, int]:
    """How many parameters were changed, added and removed; kinds that do not occur are left out."""
    kinds = [change.kind for change in changes]
    return {kind: kinds.count(kind) for kind in ("changed", "added", "removed") if kind in kinds}

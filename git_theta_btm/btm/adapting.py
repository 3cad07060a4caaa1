"""Adapting: an expert that was trained as an adapter is its model and the adapter, until that is applied.

The adapter says which version of the model it is for. If the model is another one by now, the adapter is in it already:
``git theta add --update`` changes the model and leaves the adapter's files where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..adapters.naming import Names
from ..api import Checkpoint
from ..errors import ThetaError
from ..git import Git
from ..manifest import Digest, Entry, Manifest
from ..source import BytesSource
from ..store import ObjectStore
from .places import ADAPTER, WEIGHTS

if TYPE_CHECKING:
    from ..adapters.edits import Recipe  # which needs numpy: only those who have an adapter wait for that

# What PEFT calls the files.
CONFIG, FACTORS = f"{ADAPTER}/adapter_config.json", f"{ADAPTER}/adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that is not in its model yet: its configuration, and the factors as they are stored."""

    config: Mapping[str, Any]
    text: bytes
    factors: Manifest

    @property
    def parts(self) -> list[str]:
        """What tells it from any other."""
        rows = [f"adapter {entry.name} {entry.tensor} {entry.digest}" for entry in self.factors.entries]
        return [f"adapter {Digest.of(self.text)}", *rows]

    def recipes(self, entries: Mapping[str, Entry], store: ObjectStore) -> dict[str, Recipe]:
        """How it changes the parameters of a model. Raises ``ThetaError`` unless it fits, and ``ObjectError``."""
        from ..adapters.adding import named
        from ..adapters.edits import Operand, recipe
        from ..adapters.files import adapter

        found = Checkpoint(self.factors, store)
        operands = {
            name: Operand(name, entry.tensor, BytesSource(found.raw(name))) for name, entry in found.entries.items()
        }
        changes = named(adapter(f"{ADAPTER}/", self.config, operands).edits, Names(entries))
        return {name: recipe(edit, entries[name].tensor) for name, edit in changes}


def beside(git: Git, revision: str) -> bool:
    """Whether a commit has an adapter, applied or not."""
    return bool(git.oid(f"{revision}:{CONFIG}"))


def unapplied(texts: Mapping[str, bytes], factors: Manifest | None, models: Iterable[Manifest]) -> Adapter | None:
    """The adapter that the files of a commit hold, unless there is none, or it is in the models already.

    Raises ``ThetaError`` for one that cannot be read, or does not say which model it is for.
    """
    text = texts.get(CONFIG)
    if text is None:
        return None
    from ..adapters.files import bases, parse_config

    config = parse_config(CONFIG, text)
    stated = [digest for digest in bases(ADAPTER, config) if digest]
    if not stated:
        raise ThetaError(
            f"{CONFIG} does not name the model that it is for (theta_base), so nobody knows if it is applied: "
            f"'{command(config)}' if it is not, then 'git rm -r {ADAPTER}' and 'git commit'"
        )
    if not all(model.digest in stated for model in models):
        return None
    if factors is None:
        raise ThetaError(f"{FACTORS} is not there, or not stored parameter by parameter")
    return Adapter(config, text, factors)


def command(config: Mapping[str, Any]) -> str:
    """What makes an adapter part of the model that is checked out."""
    kind = "ia3" if config.get("peft_type") == "IA3" else "low-rank"
    return f"git theta add {WEIGHTS} --update {kind} --from {ADAPTER}/"


def refusal(branch: str, found: Adapter) -> ThetaError:
    """What to say where only a model that is stored will do."""
    return ThetaError(
        f"{branch} is an adapter that is not applied, and a merge is of stored weights: 'git switch {branch}', "
        f"'{command(found.config)}', and 'git commit'"
    )

"""Requests: what one process is asked to train. Plain text, so that it reaches any process on any machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ..settings import Settings, override, parse


@dataclass(frozen=True, slots=True)
class Part:
    """What of a model is trained: everything, unless something is said. ``layers`` are ``9-13,15``, ``trainable`` is
    ``mlp``, ``attn`` or a glob, ``lora`` are options of an adapter."""

    layers: str = ""
    trainable: str = ""
    lora: Mapping[str, str] = field(default_factory=dict)
    lr_scale: float = 1.0

    def trailers(self) -> dict[str, str]:
        """What a commit says of it."""
        lora = ",".join(f"{key}={value}" for key, value in self.lora.items())
        scale = "" if self.lr_scale == 1 else f"{self.lr_scale:g}"
        return {"Layers": self.layers, "Trainable": self.trainable, "Lora": lora, "Lr-Scale": scale}


@dataclass(frozen=True, slots=True)
class Request:
    """A training: to the update ``stop`` on the branch ``ref``, of one domain or, for a seed, of ``domains`` in the
    proportions that ``balance`` names. ``root`` is a worktree of the repository."""

    root: str
    ref: str
    domains: tuple[str, ...]
    stop: int
    settings: Settings
    balance: str = ""  # empty for an expert
    weights: Mapping[str, float] | None = None  # of a mixture, for a seed
    part: Part = Part()
    optimizer: bool = True  # whether commits hold the state of the training
    eval_splits: tuple[str, ...] = ()
    command: str = ""  # a program of the user's, in the place of ours

    @property
    def domain(self) -> str:
        """The domain of an expert; empty for a seed."""
        return "" if self.balance else self.domains[0]

    def dumps(self) -> str:
        """The request as one line of text."""
        return json.dumps(asdict(self))


def loads(text: str) -> Request:
    """The request that a text holds."""
    fields = json.loads(text)
    settings = parse(fields.pop("settings"))
    part = Part(**fields.pop("part"))
    for name in ("domains", "eval_splits"):
        fields[name] = tuple(fields[name])
    return Request(settings=settings, part=part, **fields)


def seed_stop(settings: Settings) -> int:
    """The update that a seed is trained to."""
    return round(settings.training.seed_share * settings.training.steps)


def settled(settings: Settings, pairs: tuple[str, ...]) -> Settings:
    """The settings with ``KEY=VALUE`` of a command line; a key without a section is one of ``[training]``.

    Raises ``UsageError``.
    """
    split = [pair.partition("=") for pair in pairs]
    return override(settings, {key if "." in key else f"training.{key}": value for key, _, value in split})

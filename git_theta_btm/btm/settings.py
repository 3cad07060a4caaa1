"""Settings: ``btm.toml``, committed at the root of the repository. Comments in it survive a change."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from ..errors import ThetaError, UsageError
from .places import SETTINGS

VERSION = 1
Section = TypeVar("Section")


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise UsageError(f"{name} cannot be {value}: it is at least {low}")


@dataclass(frozen=True, slots=True)
class Text:
    """How text becomes blocks: the tokenizer (``bytes``, or a folder or name of Hugging Face's), and the tokens in a
    block."""

    tokenizer: str = "bytes"
    block: int = 128

    def __post_init__(self) -> None:
        _at_least("block", self.block, 2)


@dataclass(frozen=True, slots=True)
class Training:
    """How the seed and its experts are trained; defaults are those of Branch-Train-Merge, arXiv:2208.03306.

    ``steps`` counts updates in all: the seed's share of them and an expert's own. ``batch`` is blocks in an update.
    """

    steps: int = 600
    seed_share: float = 0.5
    batch: int = 32
    micro_batch: int = 32  # blocks that a device takes at a time
    learning_rate: float = 5e-4
    schedule: str = "polynomial"
    warmup: float = 0.08  # of all steps
    weight_decay: float = 0.1
    clip: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-7
    save_every: int = 100
    precision: str = "fp32"  # fp32, bf16, fp16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro_batch", "save_every"):
            _at_least(name, getattr(self, name), 1)
        if not 0 <= self.seed_share <= 1 or not 0 <= self.warmup <= 1:
            raise UsageError("seed_share and warmup are shares: from 0 to 1")
        if self.batch % self.micro_batch:
            raise UsageError(f"batch is {self.batch} blocks: not a whole number of micro_batch, {self.micro_batch}")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise UsageError(f"precision cannot be {self.precision!r}: it is fp32, bf16 or fp16")


@dataclass(frozen=True, slots=True)
class Launch:
    """How trainings are run: ``local``, ``torchrun``, ``slurm`` or ``ray``; how many at a time; what it is told."""

    launcher: str = "local"
    jobs: int = 1
    processes: int = 1  # of one training
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``btm.toml`` says. ``model`` is a preset, or a folder of Hugging Face's to start from."""

    model: str = "tiny-gpt2"
    domains: tuple[str, ...] = ()
    text: Text = Text()
    training: Training = Training()
    launch: Launch = Launch()


def load(root: str) -> Settings:
    """The settings of the worktree at ``root``. Raises ``ThetaError`` if there are none, or they make no sense."""
    path = os.path.join(root, SETTINGS)
    try:
        with open(path, "rb") as file:
            return parse(tomllib.load(file))
    except FileNotFoundError:
        raise ThetaError(f"there is no {SETTINGS} here: 'git btm init' makes one") from None
    except (tomllib.TOMLDecodeError, UsageError) as error:
        raise ThetaError(f"{SETTINGS}: {error}") from None


def parse(document: Mapping[str, Any]) -> Settings:
    """The settings that a document spells. Raises ``UsageError`` for an unknown key, or a value of another type."""
    known = {"version", "model", "domains", "text", "training", "launch"}
    if unknown := set(document) - known:
        raise UsageError(f"unknown key {min(unknown)!r}: it has {', '.join(sorted(known))}")
    if document.get("version", VERSION) != VERSION:
        raise UsageError(f"version {document['version']!r} needs another git-theta-btm")
    domains = document.get("domains", [])
    if not isinstance(domains, list) or not all(isinstance(name, str) for name in domains):
        raise UsageError("domains is a list of names")
    if len(set(domains)) != len(domains):
        raise UsageError("domains has a name twice")
    model = document.get("model", Settings().model)
    if not isinstance(model, str):
        raise UsageError("model is a text")
    sections = {name: document.get(name, {}) for name in ("text", "training", "launch")}
    return Settings(
        model,
        tuple(domains),
        _section(Text, "text", sections["text"]),
        _section(Training, "training", sections["training"]),
        _section(Launch, "launch", sections["launch"]),
    )


def _section(kind: type[Section], name: str, found: Any) -> Section:
    if not isinstance(found, Mapping):
        raise UsageError(f"[{name}] is a table")
    defaults = {item.name: getattr(kind(), item.name) for item in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in found.items():
        if key not in defaults:
            raise UsageError(f"[{name}] has no key {key!r}: it has {', '.join(defaults)}")
        values[key] = _typed(f"{name}.{key}", value, defaults[key])
    return kind(**values)


def _typed(name: str, value: Any, default: Any) -> Any:
    """A value of the type that the default has; an integer will do for a number with a fraction."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, list) and len(value) == len(default):
        return tuple(_typed(name, item, first) for item, first in zip(value, default, strict=True))
    if type(value) is type(default) or (isinstance(default, Mapping) and isinstance(value, Mapping)):
        return value
    raise UsageError(f"{name} cannot be {value!r}: it is like {default!r}")


def override(settings: Settings, pairs: Mapping[str, str]) -> Settings:
    """The settings with values as a command line gives them, ``training.steps=200``. Raises ``UsageError``."""
    document: dict[str, Any] = {"model": settings.model, "domains": list(settings.domains)}
    for name in ("text", "training", "launch"):
        document[name] = {
            key: list(v) if isinstance(v, tuple) else v for key, v in asdict(getattr(settings, name)).items()
        }
    for key, value in pairs.items():
        section, _, name = key.rpartition(".")
        place = document.get(section) if section else document
        if not isinstance(place, dict):
            raise UsageError(f"there is no setting {key!r}")
        place[name] = literal(value)
    return parse(document)


def literal(value: str) -> Any:
    """A value as TOML would have it; what is no TOML value is a text."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def write(root: str, changes: Mapping[str, Any]) -> None:
    """Set keys of the file, ``{"domains": [...]}`` or ``{"training": {"steps": 5}}``; it is made if it is not there.

    Raises ``UsageError``, and changes nothing, if the result would make no sense.
    """
    import tomlkit  # keeps what people wrote

    path = os.path.join(root, SETTINGS)
    document = tomlkit.document()
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            document = tomlkit.load(file)
    else:
        document["version"] = VERSION
    for key, value in changes.items():
        if isinstance(value, Mapping):
            table = document.setdefault(key, tomlkit.table())
            for name, item in value.items():
                table[name] = list(item) if isinstance(item, tuple) else item
        else:
            document[key] = list(value) if isinstance(value, tuple) else value
    text = tomlkit.dumps(document)
    parse(tomllib.loads(text))
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "x", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)

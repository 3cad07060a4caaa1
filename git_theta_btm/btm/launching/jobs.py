"""Jobs: programs that a launcher runs, each with a log of its own, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from ...errors import UsageError
from ..settings import Launch

_LAUNCHERS = {"local": "processes", "torchrun": "torchrun", "slurm": "slurm", "ray": "ray"}


@dataclass(frozen=True, slots=True)
class Job:
    """A program: its words, of which the first is not ``python`` but a module's arguments follow ``-m``; where it runs,
    the file that it writes its output to, and what is added to its environment."""

    name: str
    words: tuple[str, ...]
    directory: str
    log: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Launcher(Protocol):
    """What each module of a launcher is."""

    def launch(self, jobs: Sequence[Job], options: Launch) -> list[int]:
        """Run all jobs to their end, and return their exit codes. One that fails does not stop the others."""


def launch(jobs: Sequence[Job], options: Launch) -> list[int]:
    """Run jobs by the launcher that the settings name. Raises ``UsageError`` if there is no such launcher."""
    if options.launcher not in _LAUNCHERS:
        raise UsageError(f"there is no launcher {options.launcher!r}: there are {', '.join(_LAUNCHERS)}")
    found: Launcher = import_module(f".{_LAUNCHERS[options.launcher]}", __package__)
    return found.launch(jobs, options) if jobs else []

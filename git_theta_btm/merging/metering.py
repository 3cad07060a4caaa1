"""Metering: how far a merge is, for a person who waits at a terminal: git runs what merges, no command line does."""

from __future__ import annotations

import sys
import time

_PATIENCE = 1.0  # seconds that a merge may last before it shows its progress
_PAUSE = 0.1


class Meter:
    """A percentage on standard error: on a terminal only, and not before a second is over."""

    def __init__(self, label: str) -> None:
        self._label, self._next = label, time.monotonic() + _PATIENCE
        self._on, self._shown = sys.stderr.isatty(), False

    def __call__(self, done: int, total: int) -> None:
        """Tell that so many bytes are done of all."""
        if not self._on:
            return
        if self._shown and done >= total:
            self._show(total, total, "\n")
            self._shown = False
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE
            self._show(done, total, "")
            self._shown = True

    def _show(self, done: int, total: int, end: str) -> None:
        share = 100 * done // total if total else 100
        sys.stderr.write(f"\r{self._label}: {share:3d}% ({done >> 20}/{total >> 20} MiB){end}")
        sys.stderr.flush()

"""The merge driver's command line, for git's configuration."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Literal

PROGRAM = "git-theta-merge"
Mode = Literal["auto", "merge", "pick", "gather"]
PLACES = "%O %A %B %P"


def command(mode: Mode) -> str:
    """The value of ``merge.theta.driver``: by its full path, as editors and cron have no virtual environment on theirs.

    git expands % in it, and quotes what it puts there.
    """
    beside = os.path.join(os.path.dirname(sys.executable), PROGRAM)
    program = os.path.abspath(beside) if os.access(beside, os.X_OK) else PROGRAM
    return f"{shlex.quote(program).replace('%', '%%')} {mode} {PLACES}"

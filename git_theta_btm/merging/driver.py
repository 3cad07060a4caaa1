"""The merge driver: what git runs for one model that both sides changed, ``git-theta-merge MODE %O %A %B %P``.

``MODE`` is ``auto`` in git's configuration: a merge mixes the experts by the configured strategy, and everything else
that git merges with, a cherry-pick, revert, rebase or stash, applies a change. The result takes ours' place.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ThetaError
from ..git import Git
from ..gitdir import is_set
from .gathering import append
from .program import PROGRAM

USAGE = f"usage: {PROGRAM} (auto | merge | pick | gather) BASE OURS THEIRS PATH"


@dataclass(frozen=True, slots=True)
class Call:
    """What git asks for: three files that hold what it has stored, and the path that they stand for."""

    mode: str
    base: str
    ours: str
    theirs: str
    path: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the driver: 0 if ours holds the result, 1 for a conflict, with ours as it was."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 5 or words[0] not in ("auto", "merge", "pick", "gather"):
        say(USAGE)
        return 129
    call = Call(*words)
    try:
        _run(call)
    except (Exception, KeyboardInterrupt) as error:
        if is_set("GIT_TRACE_THETA"):
            raise
        hint = "" if call.mode == "gather" else f"; 'git theta resolve {shlex.quote(call.path)}' merges it another way"
        why = reason(error)
        say(f"theta: {why}{hint}" if call.path in why else f"theta: {call.path}: {why}{hint}")
        return 1
    return 0


def reason(error: BaseException) -> str:
    """An error on one line, with its kind where nobody expected it."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    expected = isinstance(error, (ThetaError, OSError)) and str(error)
    more = "GIT_TRACE_THETA=1 shows where"
    return str(error) if expected else f"{type(error).__name__}: {error}"[:500].rstrip(": ") + f" ({more})"


def _run(call: Call) -> None:
    base, ours, theirs = (_read(name) for name in (call.base, call.ours, call.theirs))
    if call.mode == "gather":
        oids = Git().text("hash-object", "--no-filters", "--", call.ours, call.theirs).split()
        text = append(ours, oids[0], theirs, oids[1])
    else:
        from .threeway import merge  # half a second that a merge of many heads need not wait for with each of them

        text = merge(call.path, (base, ours, theirs), call.mode)
    temporary = f"{call.ours}.theta"
    with open(temporary, "xb") as file:
        file.write(text)
    os.replace(temporary, call.ours)  # git would take half a file of a driver that is killed


def _read(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


def say(message: str) -> None:
    """One line for people: standard output belongs to the command that git runs."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())

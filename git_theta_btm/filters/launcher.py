"""The lean launcher: what Git runs as ``git-theta-filter clean|smudge -- <path>``.

It must never import torch, numpy, click, git or rich, and never print anything but the filter's result to stdout.

The contract (gitattributes(5), "filter"): content on stdin, result on stdout, non-zero exit fails the operation because
``filter.theta.required`` is set. Git ignores it when clean closes its input unread, which makes an unchanged file free.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import ThetaError
from ..gitdir import is_set
from ..source import write_all
from .session import Session, say

USAGE = "usage: git-theta-filter (clean | smudge [--skip]) [--] <path>"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one filter; returns the exit code."""
    verb, skip, path = _parse(sys.argv[1:] if argv is None else list(argv))
    if not path:
        print(USAGE, file=sys.stderr)
        return 129
    try:
        with Session(path) as session:
            if verb == "clean":
                write_all(1, session.clean())
            else:
                session.smudge(skip=skip)
    except BrokenPipeError:
        return 1  # git went away, and has said why
    except KeyboardInterrupt:
        return 128 + 2  # SIGINT, of which git says all there is to say
    except (ThetaError, OSError) as error:
        if is_set("GIT_TRACE_THETA"):
            raise
        say(path, error if isinstance(error, ThetaError) else _os_reason(error))
        return 1
    return 0


def _parse(words: list[str]) -> tuple[str, bool, str]:
    verb = words.pop(0) if words else ""
    skip = verb == "smudge" and words[:1] == ["--skip"]
    words = words[skip:]
    words = words[words[:1] == ["--"] :]
    valid = verb in ("clean", "smudge") and len(words) == 1
    return verb, skip or is_set("GIT_THETA_SKIP_SMUDGE"), words[0] if valid else ""


def _os_reason(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}: nothing was changed"


if __name__ == "__main__":
    sys.exit(main())

"""The program that each training is a process of: ``python -m git_theta_btm.btm.training.program REQUEST``.

The file of the request is one line; what became of it is written beside it, as ``<file>.done``.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from ...errors import ThetaError
from .requests import loads
from .restoring import write_durable


def main(path: str) -> int:
    """Do what a file asks for; 0 if it is done, 1 with one line if not."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with open(path, encoding="utf-8") as file:
        request = loads(file.read())
    try:
        if request.command:
            from .commanding import run_command as run
        else:
            from .running import run
        done = run(request)
    except (ThetaError, OSError) as error:
        sys.stderr.write(f"theta: {error}\n")
        return 1
    if not int(os.environ.get("RANK", 0)):
        checkpoint = done.checkpoint
        result = {"commit": done.commit, "step": checkpoint.step, "tokens": checkpoint.tokens, "loss": checkpoint.loss}
        write_durable(f"{path}.done", json.dumps({**result, "eval": done.trailers.get("Eval", "")}).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

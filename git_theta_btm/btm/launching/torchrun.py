"""torchrun: each job on several processes of this machine, which deal each batch out among them.

See https://docs.pytorch.org/docs/stable/elastic/run.html; ``--standalone`` picks a free port, so jobs do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import UsageError
from ..settings import Launch
from .jobs import Job
from .processes import pool, python


def launch(jobs: Sequence[Job], options: Launch) -> list[int]:
    """Run at most ``options.jobs`` at a time, each on ``options.processes`` processes."""
    return pool([spread(job, options.processes) for job in jobs], max(1, options.jobs), max(1, options.processes))


def spread(job: Job, processes: int) -> Job:
    """The job on so many processes. Raises ``UsageError`` for one that runs no module of Python."""
    if job.words[1:2] != ("-m",):
        raise UsageError(f"{job.name} runs a program of its own: torchrun runs modules of Python")
    options = ("--standalone", "--nproc-per-node", str(processes), "--max-restarts", "0")
    return replace(job, words=python("torch.distributed.run", *options, *job.words[1:]))

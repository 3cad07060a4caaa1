"""SLURM: jobs as an array, by submitit; the directory of the repository has to be one that all nodes see.

What ``launch.options`` says goes to submitit: ``partition``, ``gpus_per_node``, ``timeout_min``, ``slurm_*`` and so on
(https://github.com/facebookincubator/submitit). A job that is preempted is put into the queue again, and goes on from
its last commit. ``cluster`` is ``slurm``; ``local`` runs the same on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ...errors import ThetaError
from ..settings import Launch
from .jobs import Job
from .processes import run_job
from .torchrun import spread

_FAILED = 1


class Task:
    """One job as submitit calls it, here or on another node."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> int:
        return run_job(self.job)

    def checkpoint(self) -> Any:
        """What is put into the queue again when the time is over, or somebody else has priority: the same."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def launch(jobs: Sequence[Job], options: Launch) -> list[int]:
    """Submit all jobs as one array of which at most ``options.jobs`` run at a time (1, the default: any number), and
    wait for them. Raises ``ThetaError`` if there is no SLURM here."""
    import submitit

    given = dict(options.options)
    cluster = given.pop("cluster", "slurm")
    folder = os.path.join(os.path.dirname(jobs[0].log), "submitit")
    try:
        executor: Any = submitit.AutoExecutor(folder=folder, cluster=cluster)
        if cluster == "slurm" and options.jobs > 1:
            given.setdefault("slurm_array_parallelism", options.jobs)
        executor.update_parameters(**{"timeout_min": 24 * 60, "name": "git-btm", **given})
    except (RuntimeError, TypeError, ValueError) as error:
        raise ThetaError(f"submitit: {' '.join(str(error).split())[:200]}") from None
    spread_out = [spread(job, options.processes) if options.processes > 1 else job for job in jobs]
    return _collected(executor.map_array(Task.__call__, [Task(job) for job in spread_out]))


def _collected(submitted: Sequence[Any]) -> list[int]:
    """The exit codes of submitted jobs, which are cancelled if we are interrupted."""
    import submitit

    codes = []
    try:
        for task in submitted:
            try:
                codes.append(int(task.result()))
            except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
                codes.append(_FAILED)
    except BaseException:
        for task in submitted:
            task.cancel()
        raise
    return codes

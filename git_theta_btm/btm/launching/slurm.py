"""SLURM: jobs as an array, by submitit; the directory of the repository has to be one that all nodes see.

``launch.options`` are submitit's parameters, those of SLURM alone with or without their prefix: ``partition`` is
``slurm_partition`` (https://github.com/facebookincubator/submitit). A job that is preempted, or whose time is over, is
put into the queue again, and goes on from its last commit. ``cluster`` is ``slurm``; ``local`` runs the same on this
machine.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from io import StringIO
from typing import Any

from ...errors import ThetaError, UsageError
from ..settings import Launch
from .jobs import Job
from .processes import note, run_job
from .queue import Look, running, squeue, state, wait
from .torchrun import spread

_FAILED = 1
_AGAIN = "the same command goes on from the last commit"
_GENERAL = {"name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
_PREFIXED = ("slurm_", "local_")
_RETRIES = "slurm_max_num_timeout"


class Task:
    """One job as submitit calls it, here or on another node; its processes share the CPUs that SLURM gave it."""

    def __init__(self, job: Job, processes: int) -> None:
        self.job, self.processes = job, processes

    def __call__(self) -> int:
        import submitit

        place = submitit.JobEnvironment()
        if place.cluster != "slurm":
            return run_job(self.job)
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        note(self.job, f"SLURM job {place.job_id}")
        try:
            code = run_job(self._sized())
            if code and told:
                _ended(place, code)
        except submitit.core.utils.UncompletedJobError:
            note(self.job, f"theta: SLURM job {place.job_id} ran out of time more often than {_RETRIES} says; {_AGAIN}")
            return _FAILED
        return code

    def checkpoint(self) -> Any:
        """What is put into the queue again when the time is over, or somebody else has priority: the same."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _sized(self) -> Job:
        given = os.environ.get("SLURM_CPUS_ON_NODE", "")
        if not given.isdecimal() or "OMP_NUM_THREADS" in os.environ:
            return self.job
        threads = str(max(1, int(given) // self.processes))
        return replace(self.job, environment={"OMP_NUM_THREADS": threads, **self.job.environment})


def _ended(place: Any, code: int) -> None:
    """After SLURM told all processes to end: go without a result if the job is cancelled, as then its state says more.

    A job that still runs is to make room within its partition's grace time, at whose end nobody would put it into the
    queue again once it is over: so that is done now.
    """
    if state(place.job_id) == "RUNNING":
        signal.raise_signal(getattr(signal, f"SIG{place.USR_SIG}"))  # submitit's handler, which does not return
    sys.exit(code)


def launch(jobs: Sequence[Job], options: Launch) -> list[int]:
    """Submit all jobs as one array of which at most ``options.jobs`` run at a time (1, the default: any number), and
    wait for them. Raises ``ThetaError`` if there is no SLURM here or it refuses them, ``UsageError`` for options that
    are none."""
    import submitit

    given = {"timeout_min": 24 * 60, "name": "git-btm", **_named(options.options)}
    cluster = given.pop("cluster", "slurm")
    if options.jobs > 1:
        given.setdefault("slurm_array_parallelism", options.jobs)
    first = {_RETRIES: given.pop(_RETRIES)} if _RETRIES in given else {}
    folder = os.path.join(os.path.dirname(jobs[0].log), "submitit")
    spread_out = [spread(job, options.processes) if options.processes > 1 else job for job in jobs]
    tasks = [Task(job, options.processes) for job in spread_out]
    said = StringIO()
    try:
        executor: Any = submitit.AutoExecutor(folder=folder, cluster=cluster, **first)
        executor.update_parameters(**given)
        with redirect_stderr(said):  # of sbatch, which the exception says too
            submitted = executor.submit_array(tasks)  # objects, whose checkpoint is found, not functions
    except submitit.core.utils.FailedJobError as error:
        raise ThetaError(f"SLURM took no job: {_line(error)}; see [launch.options] in btm.toml") from None
    except (RuntimeError, TypeError, ValueError, NameError, AssertionError) as error:
        raise ThetaError(f"submitit: {_line(error)}; see [launch.options] in btm.toml, or --launcher local") from None
    _announce(jobs, submitted)
    return _collected(jobs, submitted, squeue if cluster == "slurm" else running)


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by the names that submitit has for them. Raises ``UsageError`` for more than one task a job."""
    for name in ("nodes", "tasks_per_node"):
        if options.get(name, options.get(f"slurm_{name}", 1)) != 1:
            raise UsageError(f"launch.options.{name} is 1: a training is one task, and launch.processes spreads it")
    own = _GENERAL | {"cluster", "stderr_to_stdout"}
    return {
        name if name in own or name.startswith(_PREFIXED) else f"slurm_{name}": value for name, value in options.items()
    }


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _announce(jobs: Sequence[Job], submitted: Sequence[Any]) -> None:
    names = ", ".join(f"{job.name} is job {task.job_id}" for job, task in zip(jobs, submitted, strict=True))
    sys.stderr.write(f"submitted: {names}\n")


def _collected(jobs: Sequence[Job], submitted: Sequence[Any], look: Look) -> list[int]:
    """The exit codes of submitted jobs, which are cancelled if we are interrupted."""
    try:
        left = wait(submitted, look)
    except BaseException:
        for task in submitted:
            with suppress(OSError):
                task.cancel(check=False)
        raise
    return [_code(job, task, left.get(task.job_id)) for job, task in zip(jobs, submitted, strict=True)]


def _code(job: Job, task: Any, last: str | None) -> int:
    """The exit code of a job that is over; ``last`` is its state if it left no result."""
    import submitit

    if last is None:
        with suppress(submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
            return int(task.result())
    where = "" if last in ("CANCELLED", "PREEMPTED") else f", and left no result: see {task.paths.stderr}"
    note(job, f"theta: SLURM job {task.job_id} ended as {last or 'FAILED'}{where}; {_AGAIN}")
    return _FAILED

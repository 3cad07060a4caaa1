"""The queue of a cluster: which jobs are over. SLURM is asked by ``squeue``, which every cluster has: ``sacct`` needs a
database, without which submitit would wait for ever for a job that was cancelled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .processes import ask

Look: TypeAlias = Callable[[Sequence[Any]], Mapping[str, str] | None]
_UNDER_WAY = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "REQUEUED", "REQUEUE_FED",
    "REQUEUE_HOLD", "SIGNALING", "STAGE_OUT", "STOPPED",
}  # fmt: skip
_FORGOTTEN = "GONE"  # what we call the state of a job that SLURM does not know any more
_LOOK = 1.0  # seconds between two looks at the results
_PATIENCE = 60.0  # seconds between two questions to SLURM, at most: it serves others too
_SHORT = 2.0  # and at least
_SETTLED = 10.0  # seconds after which a job that is over has no result, nor is it put into the queue again


def wait(tasks: Sequence[Any], look: Look) -> dict[str, str]:
    """Wait for submitted jobs of one array, and return the last states of those that left no result."""
    start = question = time.monotonic()
    waiting, over, ended = list(tasks), dict[str, tuple[str, float]](), dict[str, str]()
    while waiting := [task for task in waiting if task.job_id not in ended and not _result(task)]:
        now = time.monotonic()
        if now >= question:
            over = _over(waiting, look(waiting), over)
            question = now + (_SHORT if over else min(_PATIENCE, max(_SHORT, (now - start) / 10)))
        for task in waiting:
            last, since = over.get(task.job_id, ("", now))
            if now - since >= _SETTLED:
                ended[task.job_id] = last
        time.sleep(_LOOK)
    return ended


def _result(task: Any) -> bool:
    """Whether a job has left its result. The folder is listed, as a network's file system may remember for a minute
    that a file was not there."""
    path = task.paths.result_pickle
    try:
        return path.name in os.listdir(path.parent)
    except OSError:
        return False


def _over(
    tasks: Sequence[Any], known: Mapping[str, str] | None, before: Mapping[str, tuple[str, float]]
) -> dict[str, tuple[str, float]]:
    """The jobs that are over, with their states and since when we know; as before, if nothing answers."""
    if known is None:
        return dict(before)
    now, found = time.monotonic(), {}
    for task in tasks:
        last, since = before.get(task.job_id, (_FORGOTTEN, now))
        last = known.get(task.job_id, last)
        if last not in _UNDER_WAY:
            found[task.job_id] = (last, since)
    return found


def running(tasks: Sequence[Any]) -> Mapping[str, str] | None:
    """The states of submitit's own jobs of this machine."""
    return {task.job_id: "RUNNING" for task in tasks if not task.done()}


def squeue(tasks: Sequence[Any]) -> Mapping[str, str] | None:
    """The states of all jobs of an array, by their numbers; None if SLURM does not answer."""
    return _states(tasks[0].job_id.partition("_")[0])


def state(number: str) -> str:
    """The state of a job, ``12`` or ``12_0``; empty if SLURM does not know it or does not answer."""
    return (_states(number) or {}).get(number, "")


def _states(number: str) -> dict[str, str] | None:
    options = ("--noheader", "--array", "--states=all", f"--jobs={number}", "--format=%i|%T")
    code, out, error = ask(("squeue", *options))
    if code:
        return {} if "Invalid job id" in error else None
    rows = (line.strip().partition("|") for line in out.splitlines())
    return {name: word for name, _, word in rows if word}

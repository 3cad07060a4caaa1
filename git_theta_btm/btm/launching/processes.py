"""Processes: the launcher ``local``, a few at a time on this machine. The only module that starts programs but git.

Each job leads a process group of its own: so Ctrl-C reaches us alone, and whatever a job has started ends with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from ..settings import Launch
from .jobs import Job

_POLL = 0.05  # seconds between two looks at the jobs
_GRACE = 10.0  # seconds that a job has to end by itself
_SHORT = 60.0  # seconds that a short program may take
NOT_STARTED = 127


def launch(jobs: Sequence[Job], options: Launch) -> list[int]:
    """Run at most ``options.jobs`` at a time. Interrupted, end all of them and what they have started."""
    return pool(jobs, max(1, options.jobs))


def pool(jobs: Sequence[Job], width: int, processes: int = 1) -> list[int]:
    """Run at most ``width`` jobs at a time, of so many processes each; the exit codes, in the order of the jobs."""
    codes: dict[int, int] = {}
    running: dict[int, subprocess.Popen[bytes]] = {}
    waiting = list(enumerate(jobs))
    threads = max(1, (os.cpu_count() or 1) // (min(width, len(jobs) or 1) * processes))
    try:
        while waiting or running:
            while waiting and len(running) < width:
                number, job = waiting.pop(0)
                try:
                    running[number] = start(job, threads)
                except OSError as error:
                    note(job, f"theta: {job.name} did not start: {error}")
                    codes[number] = NOT_STARTED
            for number, child in list(running.items()):
                if child.poll() is not None:
                    codes[number] = child.returncode
                    del running[number]
            if running:
                time.sleep(_POLL)
    finally:
        end(list(running.values()))
    return [codes[number] for number in range(len(jobs))]


def start(job: Job, threads: int) -> subprocess.Popen[bytes]:
    """Start a job, whose output is added to its log. Raises ``OSError``."""
    os.makedirs(os.path.dirname(job.log), exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", **os.environ, **job.environment}
    with open(job.log, "ab") as log:
        return subprocess.Popen(
            job.words,
            cwd=job.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Have process groups end: asked to first, then made to."""
    for child in children:
        _signal(child, signal.SIGTERM)
    until = time.monotonic() + _GRACE
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, until - time.monotonic()))
        _signal(child, signal.SIGKILL)
        child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def note(job: Job, text: str) -> None:
    """Add a line to the log of a job."""
    os.makedirs(os.path.dirname(job.log), exist_ok=True)
    with open(job.log, "a", encoding="utf-8") as log:
        log.write(f"{text}\n")


def ask(words: Sequence[str]) -> tuple[int, str, str]:
    """Run a short program to its end: its exit code, output and errors. One that does not start or end has failed."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=_SHORT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return NOT_STARTED, "", str(error)
    return done.returncode, done.stdout, done.stderr


def run_job(job: Job) -> int:
    """Run one job to its end where this is called, which may be another machine; its exit code."""
    return pool([job], 1)[0]


def python(module: str, *words: str) -> tuple[str, ...]:
    """The words that run a module with this Python."""
    return (sys.executable, "-m", module, *words)

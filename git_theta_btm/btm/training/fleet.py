"""The fleet: many trainings, each a process with a log of its own, and what became of them. One that fails stops no
other, and what is done already is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...repository import Repository
from .. import places
from ..launching.jobs import Job, launch
from ..launching.processes import python
from ..settings import Launch
from .committing import Line
from .records import Record, latest
from .requests import Request
from .restoring import write_durable
from .workplaces import name, run_folder

_TAIL = 4096  # bytes of a log that may hold its last line


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a training: ``state`` is ``trained``, ``done`` (it was already) or ``failed``, and why."""

    name: str
    state: str
    step: int
    commit: str
    loss: float | None
    evaluated: str
    log: str
    problem: str = ""


def plan(repository: Repository, requests: Sequence[Request]) -> list[Outcome]:
    """What each request comes to before anything is done: ``done``, or ``missing`` updates."""
    found = []
    for request in requests:
        last = _last(repository, request)
        step = last.checkpoint.step if last else 0
        done = bool(last) and step >= request.stop
        commit, loss = (last.commit, last.checkpoint.loss) if last else ("", None)
        evaluated = last.trailers.get("Eval", "") if last else ""
        state = "done" if done else "missing"
        found.append(Outcome(name(request.ref), state, step, commit, loss, evaluated, _log(repository, request)))
    return found


def _last(repository: Repository, request: Request) -> Record | None:
    tip = Line(repository, request.ref).tip()
    return latest(repository.git, tip) if tip else None


def _log(repository: Repository, request: Request) -> str:
    return places.private(repository.common, "logs", f"{name(request.ref)}.log")


def train(repository: Repository, requests: Sequence[Request], options: Launch) -> list[Outcome]:
    """Do what is missing, by a launcher, and tell what became of each. Raises ``UsageError`` for a launcher unknown."""
    planned = plan(repository, requests)
    todo = [request for request, outcome in zip(requests, planned, strict=True) if outcome.state != "done"]
    jobs = [_job(repository, request) for request in todo]
    logged = [os.path.getsize(job.log) if os.path.exists(job.log) else 0 for job in jobs]
    codes = launch(jobs, options)
    ran = {request.ref: told for request, *told in zip(todo, codes, logged, strict=True)}
    after = plan(repository, requests)
    return [
        _outcome(repository, request, outcome, ran.get(request.ref))
        for request, outcome in zip(requests, after, strict=True)
    ]


def _job(repository: Repository, request: Request) -> Job:
    path = os.path.join(run_folder(repository, request.ref), "request")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_durable(path, request.dumps().encode())
    with suppress(FileNotFoundError):
        os.unlink(f"{path}.done")
    words = python("git_theta_btm.btm.training.program", path)
    return Job(name(request.ref), words, request.root, _log(repository, request))


def _outcome(repository: Repository, request: Request, after: Outcome, ran: Sequence[int] | None) -> Outcome:
    """What became of a request; ``ran`` is its job's exit code, if it had one, and where its part of the log begins."""
    if ran is None:
        return after
    code, begin = ran
    problem = Line(repository, request.ref).settle()
    if code or after.state != "done":
        problem = problem or _last_line(after.log, begin) or f"exit code {code}"
    fields = {"state": "failed" if code or after.state != "done" else "trained", "problem": problem}
    return Outcome(**{**{item: getattr(after, item) for item in Outcome.__slots__}, **fields})


def _last_line(log: str, begin: int) -> str:
    """The last line of a log that says something, of what came after an earlier run's."""
    with suppress(OSError), open(log, "rb") as file:
        file.seek(max(begin, os.path.getsize(log) - _TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").split("\n")]
        told = [line for line in lines if line.startswith("theta: ")] or [line for line in lines if line]
        return told[-1].removeprefix("theta: ") if told else ""
    return ""


def report(outcomes: Sequence[Outcome]) -> Sequence[Sequence[str]]:
    """A table for people."""
    rows = [("EXPERT", "STATE", "STEP", "LOSS", "EVALUATED", "COMMIT", "")]
    for item in outcomes:
        loss = "" if item.loss is None else f"{item.loss:.4f}"
        note = f"{item.problem} (log: {item.log})" if item.state == "failed" else item.problem
        rows.append((item.name, item.state, str(item.step), loss, item.evaluated, item.commit[:10], note))
    return rows


def outcomes_json(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """The same for programs."""
    found: list[dict[str, object]] = []
    for item in outcomes:
        fields = {key: getattr(item, key) for key in Outcome.__slots__}
        pairs = (pair.partition("=") for pair in item.evaluated.split(",") if pair)
        found.append({**fields, "evaluated": {key: json.loads(value) for key, _, value in pairs}})
    return found

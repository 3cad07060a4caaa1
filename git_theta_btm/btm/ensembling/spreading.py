"""An ensemble over several processes of this machine; more machines are what ``worker`` under torchrun is for."""

from __future__ import annotations

import json
import os
from tempfile import TemporaryDirectory

from ...errors import ThetaError
from ...repository import Repository
from .. import places
from ..evaluating.perplexity import Score
from ..launching.jobs import Job as Program
from ..launching.processes import python, run_job
from ..launching.torchrun import spread as torchrun
from .ensembles import Ensemble
from .mixing import Job, Row, subjects, texts

_WORKER = "git_theta_btm.btm.ensembling.worker"


def spread(repository: Repository, ensemble: Ensemble, job: Job, processes: int) -> list[Row]:
    """The same rows as ``over`` returns, by so many processes. Raises ``ThetaError`` if one of them fails."""
    texts(repository, job)  # made once, before each process looks for them
    subjects(repository, ensemble)
    place = places.private(repository.common, "losses")
    os.makedirs(place, exist_ok=True)
    with TemporaryDirectory(dir=place) as directory:
        request, answer, log = (os.path.join(directory, name) for name in ("request", "answer", "log"))
        with open(request, "w", encoding="utf-8") as file:
            fields = {"domains": job.domains, "split": job.split, "device": job.device}
            json.dump({"ensemble": ensemble.document(), **fields}, file)
        words = python(_WORKER, repository.worktree(), request, answer)
        code = run_job(torchrun(Program("ensemble", words, repository.worktree(), log), processes))
        if code or not os.path.exists(answer):
            raise ThetaError(f"a process of the ensemble failed with exit code {code}: {_reason(log)}")
        with open(answer, encoding="utf-8") as file:
            rows = json.load(file)
    return [Row(row["domain"], Score(row["loss"], row["tokens"]), row["shares"]) for row in rows]


def _reason(log: str) -> str:
    """What a process said last of itself: torchrun says much more."""
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    own = [line.partition("theta: ")[2] for line in lines if "theta: " in line]
    return (own or lines or ["it said nothing"])[-1]

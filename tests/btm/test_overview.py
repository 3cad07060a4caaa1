"""What there is, from refs and manifests: nothing of torch is imported for it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Repo

from git_theta_btm.btm import places
from git_theta_btm.btm.cli.status import status
from git_theta_btm.btm.evaluating.perplexity import Score
from git_theta_btm.btm.evaluating.results import Cell, Results
from git_theta_btm.btm.experts import Checkpoint
from git_theta_btm.btm.models import ModelAt
from git_theta_btm.btm.overview import overview
from git_theta_btm.btm.settings import write
from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.repository import Repository

ELEMENTS = 40_000


def weights(seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {
        "same": np.ones(ELEMENTS, np.float32),
        "trained": chance.integers(0, 1 << 32, ELEMENTS, np.uint32).view(np.int32),
    }


def checkpoint(repo: Repo, seed: int, held: Checkpoint) -> str:
    repo.write(places.WEIGHTS, weights(seed))
    return repo.commit(f"step {held.step}\n\n{held.trailers()}")


def make(repo: Repo, *domains: str) -> None:
    """A seed, and an expert for each domain."""
    repo.git("theta", "track", *places.PATTERNS)
    write(str(repo.path), {"domains": list(domains)})
    repo.write("model/config.json", b"{}")
    base = checkpoint(repo, 0, Checkpoint("", 10, 1000, None, 4.5))
    for number, domain in enumerate(domains, 1):
        repo.git("switch", "--quiet", "-c", domain, "main")
        checkpoint(repo, number, Checkpoint(domain, 20 + number, 2000, base, 3.25))
    repo.git("switch", "--quiet", "main")


@pytest.fixture
def experts(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    make(repo, "legal", "code")
    monkeypatch.chdir(repo.path)
    return repo


def test_seed_and_experts(experts: Repo) -> None:
    experts.git("switch", "--quiet", "legal")
    experts.write("note", b"after the training")
    experts.commit("a note")
    found = overview(Repository())
    (seed,) = found.seeds
    assert (seed.branch, seed.checkpoint.step, seed.checkpoint.loss) == ("main", 10, 4.5)
    assert [row.branch for row in found.experts] == ["code", "legal"]
    legal = found.experts[1]
    assert legal.commit == experts.git("rev-parse", "legal~1")
    assert (legal.checkpoint.domain, legal.checkpoint.step, legal.checkpoint.tokens) == ("legal", 21, 2000)
    assert legal.checkpoint.seed == seed.commit
    assert 4 * ELEMENTS <= legal.added < 5 * ELEMENTS  # its own tensor, and not the one that all share
    assert (found.running, found.without_expert) == ((), ())
    assert found.without_text == ("legal", "code")


def test_what_is_missing(experts: Repo) -> None:
    write(str(experts.path), {"domains": ["legal", "code", "medical"]})
    experts.write(places.text("code", "train"), b'{"text": "x"}\n')
    experts.git("switch", "--quiet", "legal")
    experts.write(places.text("legal", "train"), b'{"text": "y"}\n')
    experts.git("add", "data/legal")
    held = Checkpoint("legal", 30, 1)
    experts.git("commit", "--quiet", "-m", f"text\n\n{held.trailers()}")
    experts.git("switch", "--quiet", "main")
    found = overview(Repository())
    assert found.without_text == ("medical",)
    assert found.without_expert == ("medical",)
    run = CliRunner().invoke(status)
    assert run.exit_code == 0
    assert "git btm branch medical" in run.stderr


def test_a_branch_of_the_seed_is_no_second_seed(experts: Repo) -> None:
    experts.git("branch", "elsewhere", "main")
    assert len(overview(Repository()).seeds) == 1


def test_the_best_perplexity_that_is_known(experts: Repo) -> None:
    model = ModelAt(Repository(), "legal").digest
    scores = {Cell(model, digit * 64, 32): Score(float(loss), 10) for digit, loss in (("a", 30), ("b", 20))}
    scores[Cell("c" * 64, "d" * 64, 32)] = Score(1.0, 10)
    Results(Git()).put(scores)
    found = {row.branch: row.perplexity for row in overview(Repository()).experts}
    assert found["legal"] == pytest.approx(np.exp(2.0))
    assert found["code"] is None


def test_trainings_that_run(experts: Repo) -> None:
    runs = places.private(Repository().common, "runs")
    with ExitStack() as stack:
        for name in ("legal", "refs/seeds/other", "code"):
            os.makedirs(os.path.join(runs, name))
            file = stack.enter_context(open(os.path.join(runs, name, "lock"), "a"))
            if name != "code":  # what an earlier training left
                fcntl.flock(file, fcntl.LOCK_EX)
        found = overview(Repository())
    assert {row.branch: row.running for row in found.experts} == {"legal": True, "code": False}
    assert found.running == ("refs/seeds/other",)
    assert not any(row.running for row in overview(Repository()).experts)


def test_before_there_is_anything(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo.path)
    with pytest.raises(ThetaError, match="git btm init"):
        overview(Repository())
    write(str(repo.path), {"domains": ["legal"]})
    run = CliRunner().invoke(status)
    assert "git btm seed train" in run.stderr
    assert run.stdout == ""


def test_eight_experts_at_once(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    make(repo, *(f"domain{number}" for number in range(8)))
    monkeypatch.chdir(repo.path)
    told = json.loads(CliRunner().invoke(status, ["--json"]).stdout)
    assert len(told["experts"]) == 8
    assert {row["seed"] for row in told["experts"]} == {told["seeds"][0]["commit"]}
    script = (
        "import sys; from git_theta_btm.btm.cli import btm; btm(['status'], standalone_mode=False); "
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys(), 'slow to import'"
    )
    times = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        times.append(time.monotonic() - start)
    assert min(times) < 2  # 0.2 s alone on two cores; what else runs here has its share

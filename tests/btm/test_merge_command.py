"""``git btm merge`` as a person types it: what is an expert of the merge, and what is left to merge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from conftest import Once, Repo
from safetensors.numpy import load

from git_theta_btm.btm.cli import NAME, btm
from git_theta_btm.btm.experts import Checkpoint
from git_theta_btm.cli import execute

MODEL = "model/model.safetensors"
Merged: TypeAlias = Callable[..., tuple[str, str]]
EXPERTS = {"code": 2.0, "legal": 8.0}
START = 1.0


def build(repo: Repo) -> None:
    """A seed on ``main`` whose model is a number, and branches of two experts whose models are others."""
    repo.git("btm", "init")
    repo.write("model/config.json", b"{}")
    repo.write("training/optimizer.pt", b"moments of the seed")
    train(repo, START, Checkpoint("", 4, 10))
    seed = repo.git("rev-parse", "HEAD")
    for name, value in EXPERTS.items():
        repo.git("switch", "--quiet", "-c", name, seed)
        train(repo, value, Checkpoint(name, 8, 20, seed))
    repo.git("switch", "--quiet", "main")


def train(repo: Repo, value: float, checkpoint: Checkpoint) -> None:
    repo.write(MODEL, {"h.0.w": np.full((64, 64), value, "f4")})
    repo.write("training/optimizer.pt", f"moments at {value}".encode())
    repo.commit(f"{checkpoint.domain}\n\n{checkpoint.trailers()}")


@pytest.fixture
def trained(repo: Repo, once: Once) -> Repo:
    return once(repo, build)


@pytest.fixture
def merged(trained: Repo, capfd: pytest.CaptureFixture[str]) -> Merged:
    """``git btm merge`` in the repository, which has to end with an exit code; what it prints, on both streams."""

    def run(*words: str, code: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        found = execute(btm, NAME, ["merge", *words])
        said = capfd.readouterr()
        assert found == code, said.err
        return said

    return run


def value(repo: Repo) -> float:
    found = load((repo.path / MODEL).read_bytes())["h.0.w"]
    return float(found.reshape(-1)[0])


def test_merging_again_is_up_to_date(trained: Repo, merged: Merged) -> None:
    said = merged("code", "legal")
    assert "stopped before committing" not in said[1]
    before = trained.git("rev-parse", "HEAD")
    for words in (("code", "legal"), ("legal",), ("code", "legal", "--weights", ".5,.5"), ("legal", "--dry-run")):
        assert merged(*words) == ("", "Already up to date.\n")
    assert json.loads(merged("legal", "code", "--json")[0])["weights"] == {}
    assert trained.git("rev-parse", "HEAD") == before
    assert trained.status() == ""


def test_a_merge_is_one_commit_without_the_state_of_trainings(trained: Repo, merged: Merged) -> None:
    merged("code", "legal", "--weights", ".75,.25", "-m", "both")
    assert value(trained) == 0.75 * EXPERTS["code"] + 0.25 * EXPERTS["legal"]
    tips = trained.git("rev-parse", "code~1", "code", "legal")
    assert trained.git("log", "-1", "--format=%P").split() == tips.split()
    message = trained.git("log", "-1", "--format=%B")
    assert message.startswith("both\n")
    assert message.count("Theta-Merge:") == 1
    assert trained.git("ls-files", "training") == ""
    trained.git("theta", "verify")
    assert trained.status() == ""


def test_a_model_of_its_own_on_this_branch(trained: Repo, merged: Merged) -> None:
    """What is merged already, and one more that is not: the way out that the error names works."""
    trained.write("priors/legal.json", b'{"code": 0.25, "legal": 0.75}')
    before = trained.commit("a prior")
    merged("code")
    trained.write("notes", b"of what came later")
    trained.commit("notes")
    done = merged("code", "legal", code=129)[1]
    assert "code is in main already" in done
    assert "'git theta merge legal'" in done
    start = re.search(r"git switch -c NAME (\w+)", done)
    assert start
    assert before.startswith(start[1])  # as the seed, and with the prior
    trained.git("switch", "--quiet", "-c", "again", start[1])
    merged("code", "legal", "--weights", ".25,.75")
    assert value(trained) == 0.25 * EXPERTS["code"] + 0.75 * EXPERTS["legal"]
    assert (trained.path / "priors/legal.json").exists()


def test_on_the_branch_of_another_expert(trained: Repo, merged: Merged) -> None:
    trained.git("switch", "--quiet", "legal")
    done = merged("code", code=129)[1]
    assert "legal has another model than the seed" in done
    assert trained.git("rev-parse", "--short=10", "main") in done


def test_weights_are_those_of_the_names_on_an_experts_branch(trained: Repo, merged: Merged) -> None:
    """git puts HEAD first, wherever it was named, and weights go by their order."""
    trained.git("switch", "--quiet", "legal")
    done = merged("code", "legal", "--weights", ".75,.25", code=129)[1]
    assert "'git btm merge legal code'" in done
    merged("legal", "code", "--weights", ".25,.75", "--keep-training")
    assert (trained.path / "training/optimizer.pt").read_text() == f"moments at {EXPERTS['legal']}"
    assert value(trained) == 0.75 * EXPERTS["code"] + 0.25 * EXPERTS["legal"]


def test_experts_that_are_no_two(trained: Repo, merged: Merged) -> None:
    assert "code is named twice" in merged("code", "code", code=129)[1]
    trained.git("branch", "copy", "code")
    assert "leave code out" in merged("code", "copy", code=129)[1]

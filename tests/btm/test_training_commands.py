"""The commands, as a person types them: from text to experts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Repo
from grove import CONFIG, SETTINGS, WARNINGS, populate

pytestmark = [WARNINGS, pytest.mark.slow]


def set_up(repo: Repo) -> None:
    """A model of one layer, twelve updates."""
    populate(repo)
    repo.write("init/config.json", json.dumps({**CONFIG, "n_layer": 1}).encode())
    text = SETTINGS.replace("steps = 8", "steps = 12").replace("save_every = 2", "save_every = 3")
    repo.write("btm.toml", text.encode())
    repo.commit("settings")


def test_from_text_to_experts(repo: Repo) -> None:
    set_up(repo)
    repo.git("btm", "seed", "train")
    assert repo.git("log", "-2", "--format=%s").split("\n") == ["seed: step 6", "seed: step 3"]
    assert repo.status() == ""
    repo.git("btm", "branch", "code", "legal", "--share", "0.5")
    assert "Btm-Step: 3" in repo.git("log", "-1", "--format=%B", "code")
    repo.git("branch", "-D", "code", "legal")
    made = json.loads(repo.git("btm", "branch", "code", "legal", "--json"))
    assert [row["step"] for row in made["branches"]] == [6, 6]
    dry = json.loads(repo.git("btm", "train", "--all", "--dry-run", "--json"))["trainings"]
    assert [(row["state"], row["step"]) for row in dry] == [("missing", 6), ("missing", 6)]
    shutil.rmtree(repo.path / "init")  # nothing needs it any more
    repo.git("branch", "lost", "code")  # an expert of no text: its domain is not called so, and it trains all the same
    repo.git("branch", "-D", "lost")
    done = json.loads(repo.git("btm", "train", "--all", "-j", "2", "--eval-splits", "valid", "--json"))["trainings"]
    assert [(row["name"], row["state"], row["step"]) for row in done] == [
        ("code", "trained", 12),
        ("legal", "trained", 12),
    ]
    assert all(row["evaluated"]["valid"] < 6 for row in done)
    again = json.loads(repo.git("btm", "train", "code", "--json"))["trainings"]
    assert [row["state"] for row in again] == ["done"]
    assert repo.git("for-each-ref", "--format=%(refname)").split() == [
        f"refs/heads/{name}" for name in ("code", "legal", "main")
    ]
    repo.git("btm", "train", "--drop-optimizer", "code")
    assert repo.git("ls-tree", "--name-only", "code", "training/") == ""


def test_one_that_fails_does_not_stop_the_others(repo: Repo) -> None:
    set_up(repo)
    repo.git("btm", "seed", "train", "--set", "steps=2")
    repo.git("btm", "branch", "code", "legal")
    with open(repo.path / "program.py", "w", encoding="utf-8") as file:
        file.write("import os, sys\nprint('a word')\nsys.exit(os.environ['BTM_DOMAIN'] == 'code')\n")
    command = f"python3 {repo.path / 'program.py'}"
    done = repo.run("btm", "train", "--all", "--cmd", command, "--json", check=False)
    assert done.returncode == 1
    rows = json.loads(done.stdout)["trainings"]
    assert [row["state"] for row in rows] == ["failed", "trained"]
    assert "ended with 1" in rows[0]["problem"]
    log = Path(rows[0]["log"])
    log.write_text(log.read_text() + "theta: an old reason\n")
    (repo.path / "program.py").write_text("import os\nos.killpg(os.getpgid(os.getppid()), 9)\n")
    done = repo.run("btm", "train", "code", "--cmd", command, "--json", check=False)
    assert [row["problem"] for row in json.loads(done.stdout)["trainings"]] == ["exit code -9"]


def test_a_training_on_two_processes(repo: Repo) -> None:
    """The same blocks in each update: what differs is the order of sums."""
    torch = pytest.importorskip("torch")
    from git_theta_btm.btm.models import ModelAt
    from git_theta_btm.repository import Repository

    set_up(repo)
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        config = json.loads((repo.path / "init/config.json").read_bytes())
        repo.write("init/config.json", json.dumps({**config, name: 0.0}).encode())
    one = Repo(Path(shutil.copytree(repo.path, repo.path.parent / "one", symlinks=True)))
    one.git("btm", "seed", "train")
    repo.git("btm", "seed", "train", "--launcher", "torchrun", "--set", "launch.processes=2")
    states = [ModelAt(Repository(str(item.path)), "main").state() for item in (one, repo)]
    assert all(torch.allclose(states[0][name], value, atol=1e-4) for name, value in states[1].items())
    files = repo.git("ls-tree", "--name-only", "main", "training/").split("\n")
    assert {"training/rng_state_0.pth", "training/rng_state_1.pth"} <= set(files)
    assert repo.git("log", "--format=%s", "-2").split("\n") == ["seed: step 6", "seed: step 3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train",), "name experts, or say --all"),
        (("train", "--all"), "git btm branch"),
        (("train", "code"), "no expert"),
        (("branch", "code"), "git btm seed train"),
        (("branch", "code", "--share", ".5", "--update", "3"), "give one"),
        (("branch", "code", "--last", "--update", "3"), "give one"),
        (("seed", "train", "--balance", "some"), "balance"),
        (("seed", "train", "--set", "stepz=3"), "stepz"),
        (("sweep", "layers", "code", "--each", "--window", "2"), "give one"),
    ],
)
def test_what_makes_no_sense(repo: Repo, words: tuple[str, ...], said: str) -> None:
    set_up(repo)
    done = repo.run("btm", *words, check=False)
    assert done.returncode in (128, 129)
    assert said in done.stderr.decode()

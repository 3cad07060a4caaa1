"""``git btm init``: what it takes for a model, and what it says when there is nothing to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Repo

from git_theta_btm.btm import settings
from git_theta_btm.btm.cli.init import init
from git_theta_btm.errors import ThetaError


@pytest.fixture
def here(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository in which the test stands."""
    monkeypatch.chdir(repo.path)
    return repo


def said(*words: str) -> str:
    return CliRunner().invoke(init, list(words), catch_exceptions=False).stderr


def test_a_second_time_there_is_nothing_to_commit(here: Repo) -> None:
    assert said().startswith("now: git commit")
    assert said().startswith("now: git commit")  # it is staged still
    here.git("commit", "--quiet", "-m", "settings")
    assert said() == "nothing has changed: btm.toml and .gitattributes say all that already\n"
    assert here.status() == ""
    assert said("--steps", "7").startswith("now: git commit")
    assert settings.load(str(here.path)).training.steps == 7


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "neither a preset \\(tiny-gpt2, .* nor a folder with a config.json"),
        ("{", "config.json is no JSON"),
        ("[]", "model_type"),
        (json.dumps({"model_type": 5}), "model_type"),
    ],
)
def test_a_model_that_is_none(here: Repo, config: str | None, words: str) -> None:
    if config is not None:
        here.write("mine/config.json", config.encode())
    with pytest.raises(ThetaError, match=words):
        said("--model", "mine")
    assert not (here.path / "btm.toml").exists()


def test_a_folder_from_the_root(here: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here.write("mine/config.json", b'{"model_type": "gpt2"}')
    (here.path / "below").mkdir()
    monkeypatch.chdir(here.path / "below")
    said("--model", "mine")
    assert settings.load(str(here.path)).model == "mine"
    said("--model", str(here.path / "mine"))
    with pytest.raises(ThetaError, match="neither"):
        said("--model", "nope")
    assert settings.load(str(here.path)).model == str(here.path / "mine")


def test_it_needs_no_torch(here: Repo) -> None:
    script = "import sys; from git_theta_btm.btm.cli import main; sys.argv[1:] = ['init']\n"
    script += "try: main()\nfinally: print({'torch', 'transformers', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

"""Trainings that are killed: they go on as if nothing had been, parameter for parameter."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Repo, surroundings
from grove import WARNINGS, digest, in_a_child, plant, request, torch

from git_theta_btm.btm.models import ModelAt
from git_theta_btm.btm.training.records import latest
from git_theta_btm.btm.training.running import run
from git_theta_btm.repository import Repository

pytestmark = WARNINGS


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory)


@pytest.fixture
def grove(planted: Path, tmp_path: Path) -> Repo:
    return Repo(Path(shutil.copytree(planted, tmp_path / "grove", symlinks=True)))


@pytest.fixture(scope="module")
def reference(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the expert, trained without an interruption."""
    repo = Repo(Path(shutil.copytree(planted, tmp_path_factory.mktemp("reference") / "repo", symlinks=True)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        torch.set_num_threads(1)
        done = run(request(repo))
    assert done.checkpoint.step == 8
    assert repo.git("worktree", "list").count("\n") == 0
    return digest(repo, "code")


def killed_at(event: str, count: int) -> Callable[..., None]:
    """A hook that kills this process, at once, when something happens for the so-manieth time."""
    seen = 0

    def hook(name: str, arguments: object) -> None:
        nonlocal seen
        if name == event:
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


@pytest.mark.parametrize(
    ("event", "count"),
    [("subprocess.Popen", 25), ("subprocess.Popen", 60), ("os.rename", 3), ("shutil.rmtree", 1)],
)  # fmt: skip
@pytest.mark.parametrize("optimizer", [True, False])
def test_killed_anywhere_it_goes_on_as_if_nothing_had_been(
    grove: Repo, reference: str, event: str, count: int, *, optimizer: bool
) -> None:
    """Parameter for parameter, also where commits hold no state of the optimizer: the run's own folder does."""
    wanted = request(grove, optimizer=optimizer)

    def killed() -> None:
        sys.addaudithook(killed_at(event, count))
        run(wanted)

    in_a_child(killed)  # a late event may come after the end
    assert ModelAt(Repository(str(grove.path)), "code").model() is not None
    assert in_a_child(lambda: run(wanted)) == 0
    found = latest(Repository(str(grove.path)).git, "code")
    assert found and found.checkpoint.step == 8
    assert found.checkpoint.tokens == 8 * 4 * 32
    assert digest(grove, "code") == reference
    assert grove.git("fsck", "--strict") == ""


def test_a_clone_goes_on_too(grove: Repo, reference: str, tmp_path: Path) -> None:
    run(request(grove, stop=6))
    other = Repo(Path(shutil.copytree(grove.path, tmp_path / "other", symlinks=True)))
    shutil.rmtree(other.path / ".git/btm")
    run(request(other))
    assert digest(other, "code") == reference

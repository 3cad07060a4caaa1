"""Experts of one seed, in a repository whose branches are made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo, surroundings
from safetensors.numpy import load

State = Mapping[str, Any]
MODEL = "m.safetensors"
_HALF_ULP = 2.0**-24 * 1.001  # relative: float32 rounded once from the exact value


def expert(number: int) -> dict[str, Any]:
    """The model of expert ``number``; the seed is number 0. Its counter is the same everywhere."""
    seed, own = np.random.default_rng(7), np.random.default_rng(number)
    made = {f"h.{index}.w": seed.normal(0, 1, (40, 30)).astype("f4") for index in range(3)}
    if number:
        made = {name: value + own.normal(0, 0.1, value.shape).astype("f4") for name, value in made.items()}
    return {**made, "steps": np.arange(4)}


def mean(*states: State, weights: Sequence[float] = ()) -> dict[str, Any]:
    """The weighted mean in float64; what is no float is the first one's."""
    shares = np.array(weights or (1.0,) * len(states), "f8")
    shares /= shares.sum()
    return {
        name: sum(share * state[name].astype("f8") for share, state in zip(shares, states, strict=True))
        if value.dtype.kind == "f"
        else value
        for name, value in states[0].items()
    }


def rounded(state: State) -> dict[str, Any]:
    """What a file holds of these values, from which the next merge goes on."""
    return {name: value.astype("f4") if value.dtype.kind == "f" else value for name, value in state.items()}


def plus(ours: State, after: State, before: State) -> dict[str, Any]:
    """``ours`` and what was done between ``before`` and ``after``, in float64."""
    return {
        name: value.astype("f8") + (after[name].astype("f8") - before[name].astype("f8"))
        if value.dtype.kind == "f"
        else value
        for name, value in ours.items()
    }


def state(repo: Repo, revision: str = "HEAD", path: str = MODEL) -> dict[str, Any]:
    """The model that a commit has."""
    return load(repo.run("cat-file", "--filters", f"{revision}:{path}").stdout)


def check(repo: Repo, expected: State, path: str = MODEL, *, status: str = "") -> None:
    """The worktree's file has these values, each rounded once, and git's status is as expected."""
    assert repo.status() == status
    found = load((repo.path / path).read_bytes())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].astype("f8"), value.astype("f8"), rtol=_HALF_ULP, err_msg=name)


def parents(repo: Repo, *expected: str, revision: str = "HEAD") -> None:
    """A commit has the parents that these names stand for, in this order."""
    found = repo.git("log", "-1", "--format=%P", revision).split()
    assert found == [repo.git("rev-parse", f"{name}^{{commit}}") for name in expected]


def branch(repo: Repo, name: str, start: str, files: Mapping[str, bytes | State]) -> None:
    """A branch with one commit that writes these files."""
    repo.git("checkout", "--quiet", "-b", name, start)
    for path, content in files.items():
        repo.write(path, content)
    repo.commit(name)
    repo.git("tag", f"{name}-0")


@pytest.fixture(scope="module")
def branched(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``main`` is the seed. ``legal``, ``medical`` and ``code`` are experts 1 to 3, ``clash`` is 4. Each has a text,
    legal and clash the same one. ``twin`` has the model of legal, ``notes`` that of the seed."""
    path = tmp_path_factory.mktemp("branched") / "repo"
    shutil.copytree(template, path, symlinks=True)
    repo = Repo(path)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(path.parent).items():
            patch.setenv(name, value)
        repo.write(MODEL, expert(0))
        repo.write("README", b"hello\n")
        repo.commit("seed")
        repo.git("tag", "seed")
        branch(repo, "legal", "main", {MODEL: expert(1), "README": b"legal\n"})
        branch(repo, "medical", "main", {MODEL: expert(2), "medical.txt": b"medical\n"})
        branch(repo, "code", "main", {MODEL: expert(3), "code.txt": b"code\n"})
        branch(repo, "clash", "main", {MODEL: expert(4), "README": b"clash\n"})
        branch(repo, "twin", "main", {MODEL: expert(1), "twin.txt": b"twin\n"})
        branch(repo, "notes", "main", {"notes.txt": b"notes\n"})
        repo.git("checkout", "--quiet", "main")
    return path


@pytest.fixture
def repo(branched: Path, tmp_path: Path) -> Repo:
    """A copy of the branches."""
    return Repo(Path(shutil.copytree(branched, tmp_path / "repo", symlinks=True)))

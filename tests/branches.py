"""Branches that each train the same seed in their own way, and ``git theta`` as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import SUFFIXES, Repo, surroundings
from safetensors.numpy import load, save

from git_theta_btm.filters.clean import clean
from git_theta_btm.source import BytesSource
from git_theta_btm.store import Forgetful

MODEL = "model.safetensors"
Tensors = dict[str, npt.NDArray[np.float32]]


def seed(rows: int = 90) -> Tensors:
    """What every expert starts from."""
    random = np.random.default_rng(0)
    return {f"h.{index}.w": random.standard_normal((rows, 64), "f4") for index in range(3)}


def trained(number: int, rows: int = 90) -> Tensors:
    """The seed, trained by expert ``number``."""
    random = np.random.default_rng(number)
    return {
        name: value + random.standard_normal(value.shape, "f4") / np.float32(50) for name, value in seed(rows).items()
    }


def mean(states: Sequence[Tensors], weights: Sequence[float] = ()) -> Tensors:
    """The weighted mean, computed in float64 and rounded once."""
    shares = weights or [1.0] * len(states)
    return {
        name: (sum(w * s[name].astype("f8") for w, s in zip(shares, states, strict=True)) / sum(shares)).astype("f4")
        for name in states[0]
    }


def pack(tensors: Tensors) -> bytes:
    data: bytes = save(dict(tensors), {"format": "pt"})
    return data


def branch(repo: Repo, name: str, files: dict[str, bytes], start: str = "main") -> None:
    """A branch with one commit that writes these files."""
    sprout(repo, {name: files}, start)


def sprout(repo: Repo, branches: dict[str, dict[str, bytes]], start: str = "main") -> None:
    """Several such branches, without a checkout and by one process. Models are stored as the filter stores them."""
    parts = []
    for name, files in branches.items():
        parts.append(b"commit refs/heads/%b\ncommitter C. O. Mitter <c@example.com> 1704067200 +0000\n" % name.encode())
        parts.append(_data(f"train {name}".encode()) + b"from refs/heads/%b^0\n" % start.encode())
        for path, data in files.items():
            models = path.endswith(tuple(f".{suffix}" for suffix in SUFFIXES))
            text = clean(BytesSource(data), repo.store, Forgetful()).dumps() if models else data
            parts.append(b'M 100644 inline "%b"\n' % path.encode() + _data(text))
    repo.run("fast-import", "--quiet", stdin=b"".join(parts))


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


def experts(repo: Repo, *names: str, path: str = MODEL, make: Callable[[Tensors], bytes] = pack) -> dict[str, Tensors]:
    """A seed on ``main``, and for each name a branch with its own version of the model and a file of its own."""
    repo.write(path, make(seed()))
    repo.write("README", b"hello\n")
    repo.commit("seed")
    states = {name: trained(number) for number, name in enumerate(names, 1)}
    sprout(repo, {name: {path: make(state), f"{name}.txt": name.encode()} for name, state in states.items()})
    return states


@pytest.fixture(scope="session")
def trio_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Branches ``legal``, ``medical`` and ``code``, and ``both``, which merges the first two; made once."""
    directory = tmp_path_factory.mktemp("trio")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(directory).items():
            patch.setenv(name, value)
        repo = Repo(Path(shutil.copytree(template, directory / "repo", symlinks=True)))
        experts(repo, "legal", "medical", "code")
        repo.git("checkout", "--quiet", "-b", "both")
        theta(repo, "merge", "legal", "medical")
        repo.git("checkout", "--quiet", "main")
    return repo.path


@pytest.fixture
def trio(trio_template: Path, tmp_path: Path) -> Repo:
    """A copy of them for one test, on ``main``."""
    return Repo(Path(shutil.copytree(trio_template, tmp_path / "trio", symlinks=True)))


def merged(repo: Repo, path: str = MODEL) -> Tensors:
    tensors: Tensors = load((repo.path / path).read_bytes())
    return tensors


def same(one: Tensors, other: Tensors) -> bool:
    """Whether two states have the same bits."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def theta(
    repo: Repo, *arguments: str, code: int = 0, stdin: str = "", cwd: str = "."
) -> subprocess.CompletedProcess[str]:
    """Run ``git theta`` and expect an exit code, and never a traceback."""
    done = subprocess.run(
        ["git", "theta", *arguments],
        cwd=repo.path / cwd,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def parents(repo: Repo, revision: str = "HEAD") -> list[str]:
    return repo.git("log", "-1", "--format=%P", revision).split()


def message(repo: Repo, revision: str = "HEAD") -> str:
    return repo.git("log", "-1", "--format=%B", revision)

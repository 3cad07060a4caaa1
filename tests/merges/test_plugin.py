"""The strategy in docs/extending.md merges branches once its package is installed, and is not needed afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias
from zipfile import ZipFile

import numpy as np
import pytest
from conftest import Repo
from safetensors.numpy import load

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
SECTION = PAGE.partition("## A merge strategy")[2].partition("\n## ")[0]
Weights: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def block(language: str) -> str:
    """The only block of the section in a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return str(text)


def wheel(directory: Path) -> Path:
    """The package that the section describes. A wheel needs nothing from the network, and no build backend."""
    ((group, points),) = tomllib.loads(block("toml"))["project"]["entry-points"].items()
    module = block("python").splitlines()[0].removeprefix("# ").removesuffix(".py")
    info = f"{module}-1.0.dist-info"
    files = {
        f"{module}.py": block("python"),
        f"{info}/METADATA": METADATA.format(name=module),
        f"{info}/WHEEL": WHEEL,
        f"{info}/entry_points.txt": f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()),
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    path = directory / f"{module}-1.0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def installed(tmp_path: Path) -> Mapping[str, str]:
    """What to add to the environment so that the plugin is there."""
    target = tmp_path / "installed"
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel(tmp_path))], check=True)
    return {"PYTHONPATH": os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture
def experts(repo: Repo) -> list[Weights]:
    """What the branches ``legal``, ``code`` and ``medical``, which is checked out, have as their weight."""
    random = np.random.default_rng(0)
    seed = random.normal(0, 1, (300, 100)).astype(np.float32)
    repo.write("model.safetensors", {"w": seed, "norm": np.ones(5, np.float32)})
    repo.commit("seed")
    found = []
    for name in ("legal", "code", "medical"):
        repo.git("checkout", "--quiet", "-b", name, "main")
        found.append(seed + random.normal(0, 0.1, seed.shape).astype(np.float32))
        repo.write("model.safetensors", {"w": found[-1], "norm": np.ones(5, np.float32)})
        repo.commit(name)
    return found


def test_the_example_is_short() -> None:
    assert len(block("python").splitlines()) <= 30


def test_the_strategy_merges_branches(repo: Repo, installed: Mapping[str, str], experts: list[Weights]) -> None:
    command = ["merge", "--no-ff", "-s", "theta", "-X", "method=trimmed_mean"]
    before = repo.sha("model.safetensors")
    for words, environment, message in (
        (["legal", "code"], {}, "there is no merge strategy 'trimmed_mean'"),
        (["legal"], installed, "trimmed_mean cannot merge 2 models"),
        (["-X", "drop=2", "legal", "code"], installed, "nothing is left of 3 models"),
    ):
        done = repo.run(*command, *words, check=False, env=environment)
        assert done.returncode and message in done.stderr.decode()
        assert repo.sha("model.safetensors") == before
    repo.run(*command, "legal", "code", env=installed)
    merged = load((repo.path / "model.safetensors").read_bytes())["w"]
    assert np.array_equal(merged, np.median(np.stack(experts), axis=0))
    assert "Theta-Merge: trimmed_mean drop=1 " in repo.git("log", "-1", "--format=%B")
    assert len(repo.git("log", "-1", "--format=%P").split()) == 3
    after = repo.sha("model.safetensors")
    (repo.path / "model.safetensors").unlink()
    repo.git("checkout", "--", "model.safetensors")  # without the plugin
    assert repo.sha("model.safetensors") == after
    assert repo.status() == ""

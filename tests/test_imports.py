"""What a filter imports is what every ``git status`` waits for."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import Repo
from safetensors.numpy import save

HEAVY = {
    "torch", "numpy", "click", "git", "rich", "tensorstore", "concurrent.futures", "asyncio", "zipfile", "logging",
    "typing_extensions", "safetensors", "h5py", "importlib.metadata", "multiprocessing", "email",
    "urllib", "http",
}  # fmt: skip
FILTER = """
import json, os, sys
from git_theta_btm.filters.launcher import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as report:
    json.dump(sorted(sys.modules), report)
sys.exit(code)
"""


def modules_of(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def baseline() -> set[str]:
    """What Python itself brings along here, before any of our code."""
    return modules_of("pass")


def test_the_package_itself_is_free() -> None:
    added = modules_of("import git_theta_btm") - baseline()
    assert added == {"git_theta_btm"}


@pytest.mark.parametrize(
    "module", ["manifest", "layout", "store", "catalogue", "pack", "parallel", "gitdir", "git", "formats"]
)
def test_modules_on_the_path_of_the_filters(module: str) -> None:
    added = modules_of(f"import git_theta_btm.{module}") - baseline()
    assert not added & HEAVY


@pytest.mark.parametrize("state", ["fresh", "unchanged", "touched", "changed", "stub"])
@pytest.mark.parametrize("verb", ["clean", "smudge"])
def test_a_filter_imports_nothing_heavy(repo: Repo, verb: str, state: str) -> None:
    model = {f"h.{index}": np.full(50_000, index, "f4") for index in range(5)}
    repo.write("m.safetensors", model)
    text = b""
    if state != "fresh" or verb == "smudge":
        repo.commit()
        text = repo.blob("m.safetensors")
    if state == "touched":
        (repo.path / "m.safetensors").touch()
    if state == "changed":
        repo.write("m.safetensors", {**model, "h.0": model["h.1"] * 2})
    data = text if verb == "smudge" or state == "stub" else (repo.path / "m.safetensors").read_bytes()
    report = repo.path.parent / "modules"
    done = subprocess.run(
        [sys.executable, "-c", FILTER, str(report), verb, "--", "m.safetensors"],
        cwd=repo.path,
        input=data,
        capture_output=True,
        check=True,
    )
    expected = save(model, {"format": "pt"}) if verb == "smudge" else b"git-theta-btm manifest 1: "
    assert done.stdout.startswith(expected)
    assert not (set(json.loads(report.read_text())) - baseline()) & HEAVY

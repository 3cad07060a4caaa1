"""The README's commands are what they claim to be."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_second_command_runs_the_tests_and_is_what_ci_calls() -> None:
    command = BLOCKS[0].splitlines()[1].split("  ")[0]
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_demo_runs_as_written(tmp_path: Path) -> None:
    script = "set -euo pipefail\n" + BLOCKS[1]
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "theta:" not in done.stderr  # only messages, no complaints
    assert "model.safetensors" in done.stdout
    status = subprocess.run(["git", "status", "--short"], cwd=tmp_path / "demo", capture_output=True, check=True)
    assert status.stdout == b""
    changed = subprocess.run(
        ["git", "diff", "legal~1", "legal"], cwd=tmp_path / "demo", capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^\+param (\S+)", changed, re.MULTILINE) == [
        f"h.{layer}.{part}.weight" for layer in (3, 4) for part in ("attn", "mlp")
    ]


def read(directory: Path, *words: str) -> Any:
    """The JSON that a command prints."""
    return json.loads(subprocess.run(["git", *words, "--json"], cwd=directory, capture_output=True, check=True).stdout)


def test_branch_train_merge_runs_as_written(tmp_path: Path) -> None:
    """And does what the paper says, as far as a model of 182,000 parameters can show it."""
    script = "set -euo pipefail\n" + BLOCKS[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    repo, domains = tmp_path / "experts", ["code", "legal", "docs"]
    found = {row["model"]: row["scores"] for row in read(repo, "btm", "eval", "--matrix")["models"]}
    table = {model: {domain: scores[domain]["perplexity"] for domain in domains} for model, scores in found.items()}
    for domain in domains:
        assert table[domain][domain] < 0.95 * table["seed"][domain]
        assert min(domains, key=lambda model: table[model][domain]) == domain
    prior = json.loads((repo / "priors" / "legal.json").read_text())["prior"]
    assert max(prior, key=prior.__getitem__) == "legal"
    (ensemble,) = read(repo, "btm", "ensemble", "eval", "all", "--data", "legal")["domains"]
    assert ensemble["perplexity"] <= 1.01 * table["legal"]["legal"]
    message = subprocess.run(["git", "log", "-1", "--format=%B"], cwd=repo, capture_output=True, text=True, check=True)
    figures = dict(re.findall(r"^    (\S.*?) +([0-9.]+)$", message.stdout, re.MULTILINE))
    assert float(figures["this merge"]) < min(float(figures["uniform merge"]), float(figures["seed"]))
    assert read(repo, "theta", "verify")

"""The README's commands are what they claim to be."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

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


def perplexities(directory: Path, *words: str) -> dict[str, dict[str, float]]:
    """Perplexity by model and by domain, as ``git btm eval --json`` has them."""
    done = subprocess.run(["git", "btm", "eval", *words, "--json"], cwd=directory, capture_output=True, check=True)
    found: dict[str, dict[str, float]] = {}
    for row in json.loads(done.stdout)["rows"]:
        found.setdefault(row["model"], {})[row["domain"]] = row["perplexity"]
    return found


def test_branch_train_merge_runs_as_written(tmp_path: Path) -> None:
    """And does what the paper says, as far as a model of 100,000 parameters can."""
    pytest.importorskip("transformers")
    script = "set -euo pipefail\n" + BLOCKS[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

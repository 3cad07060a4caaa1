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
        ["git", "diff", "main", "legal"], cwd=tmp_path / "demo", capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^\+param (\S+)", changed, re.MULTILINE) == [
        f"h.{layer}.{part}.weight" for layer in (3, 4) for part in ("attn", "mlp")
    ]

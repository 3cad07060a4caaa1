"""The examples of docs/python.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Repo

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_guide_runs_as_written(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    repo = Repo(tmp_path)
    repo.git("init", "--quiet")
    script = "".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    checks = "\nassert (rows == 1).all() and rows.shape == (10, 512) and len(head) == 16 and len(data) == 2048\n"
    done = subprocess.run([sys.executable, "-c", script + checks], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "changed 0.weight" in done.stdout and "is neither a NumPy array nor a torch tensor" in done.stdout
    assert repo.git("log", "--format=%s", "run") == "Step 2\nStep 1\nStep 0\nBegin"
    assert repo.git("log", "-1", "--format=%(trailers:key=Step,valueonly)", "run").strip() == "2"

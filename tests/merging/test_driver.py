"""The driver as git calls it: exit codes, and the file that holds ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Repo
from test_imports import HEAVY, baseline

from git_theta_btm.merging.driver import USAGE, main, say

GATHER = """
import json, sys
from git_theta_btm.merging.driver import main
code = main(["gather", "base", "ours", "theirs", "m"])
print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize("words", [[], ["auto"], ["auto", "a", "b", "c"], ["mix", "a", "b", "c", "d"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 129
    assert capsys.readouterr() == ("", USAGE + "\n")


def test_what_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\x1b[1m é")
    assert capsys.readouterr() == ("", "a\\nb\\x1b[1m é\n")


@pytest.mark.parametrize("mode", ["auto", "merge", "pick", "gather"])
def test_a_conflict_leaves_ours(
    repo: Repo, mode: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo.path)
    for name in ("base", "ours", "theirs"):
        Path(name).write_bytes(name.encode())
    assert main([mode, "base", "ours", "theirs", "a b.pt"]) == 1
    assert Path("ours").read_bytes() == b"ours"
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert error.startswith("theta: a b.pt: one side is not stored parameter by parameter")
    assert ("git theta resolve 'a b.pt'" in error) is (mode != "gather")
    assert main([mode, "base", "nowhere", "theirs", "m"]) == 1


def test_gathering_imports_nothing_heavy(repo: Repo) -> None:
    text = b"git-theta-btm manifest 1: a model\n"
    for name in ("base", "ours", "theirs"):
        (repo.path / name).write_bytes(text + name.encode() + b"\n")
    oids = repo.git("hash-object", "--no-filters", "ours", "theirs").split()
    done = subprocess.run([sys.executable, "-c", GATHER], cwd=repo.path, capture_output=True, check=True)
    assert not (set(json.loads(done.stdout)) - baseline()) & HEAVY
    ours = (repo.path / "ours").read_text()
    assert ours.startswith(text.decode())
    assert ours.splitlines()[-2:] == [f"gathered {oid}" for oid in oids]

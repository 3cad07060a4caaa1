from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta_btm.cli import COMMANDS

PAGE = Path(__file__).parents[2] / "man" / "git-theta.1"


def test_the_page_is_what_the_commands_say() -> None:
    command = [sys.executable, "-m", "git_theta_btm.cli.manual"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == PAGE.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described(command: str) -> None:
    assert f".SS git theta {command.replace('-', chr(92) + '-')} " in PAGE.read_text()


def test_troff_finds_nothing_wrong() -> None:
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    done = subprocess.run(["man", "-l", "--warnings=all", str(PAGE)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "git theta ls-files [OPTIONS] [REV] [PATH]..." in done.stdout

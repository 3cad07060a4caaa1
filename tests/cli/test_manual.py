from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from git_theta_btm.btm.cli import COMMANDS as BTM
from git_theta_btm.btm.cli import btm
from git_theta_btm.cli import COMMANDS as THETA

MAN = Path(__file__).parents[2] / "man"
PAGES = {"git-theta": "git_theta_btm.cli.manual", "git-btm": "git_theta_btm.btm.cli.manual"}


def page(name: str) -> str:
    return (MAN / f"{name}.1").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_commands_say(name: str) -> None:
    command = [sys.executable, "-m", PAGES[name]]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == page(name)


@pytest.mark.parametrize("command", [*(f"git theta {name}" for name in THETA), *(f"git btm {name}" for name in BTM)])
def test_every_command_is_described(command: str) -> None:
    name = "-".join(command.split()[:2])
    assert f".SS {command.replace('-', chr(92) + '-')} " in page(name)


def test_commands_of_commands_are_described() -> None:
    data = btm.get_command(click.Context(btm), "data")
    assert isinstance(data, click.Group)
    assert all(f".SS git btm data {name} " in page("git-btm") for name in data.commands)
    assert "\\fBgit btm data COMMAND" not in page("git-btm")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("git-theta", "git theta ls-files [OPTIONS] [REV] [PATH]..."),
        ("git-btm", "git btm data add [OPTIONS] [DOMAIN] FILE..."),
    ],
)
def test_troff_finds_nothing_wrong(name: str, line: str) -> None:
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    command = ["man", "-l", "--warnings=all", str(MAN / f"{name}.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert line in done.stdout


@pytest.mark.parametrize("words", [["btm", "--help"], ["help", "btm"], ["theta", "--help"]])
def test_git_finds_the_page(words: list[str], tmp_path: Path) -> None:
    """By the name that an installation gives it, on the path that man is looking at."""
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    (tmp_path / "man1").mkdir()
    for name in PAGES:
        shutil.copy(MAN / f"{name}.1", tmp_path / "man1")
    environment = {**os.environ, "MANPATH": str(tmp_path), "MANPAGER": "cat", "MANWIDTH": "100"}
    done = subprocess.run(["git", *words], env=environment, capture_output=True, text=True, check=True)
    program = "git-theta" if "theta" in words else "git-btm"
    assert done.stdout.startswith(program.upper())
    assert program.replace("-", " ") + " merge [OPTIONS]" in done.stdout


def test_help_of_a_command_of_git_btm() -> None:
    """git takes ``--help`` for itself only right after the command's name."""

    def said(*words: str) -> str:
        return subprocess.run(["git", "btm", *words], capture_output=True, text=True, check=True).stdout

    assert said("train", "--help") == said("help", "train")
    assert said("help", "train").startswith("Usage: git btm train")
    assert said("help", "data", "add") == said("data", "add", "-h")
    assert said("help") == said("-h")
    done = subprocess.run(["git", "btm", "help", "data", "frob"], capture_output=True, text=True, check=False)
    assert done.returncode == 129
    assert done.stderr.splitlines()[0] == "theta: there is no command 'frob'"

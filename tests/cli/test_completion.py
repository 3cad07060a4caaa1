from __future__ import annotations

import shutil
import subprocess

import pytest

from git_theta_btm.cli import COMMANDS


def script(shell: str) -> str:
    command = ["git", "theta", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def complete(words: str, count: int, index: str = "1") -> list[str]:
    """What bash offers for the last of the words, as git's own completion asks."""
    body = f"""
{script("bash")}
words=({words}); cword={count}; __git_cmd_idx={index}
_git_theta
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", body], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands() -> None:
    assert complete("git theta ''", 2) == list(COMMANDS)
    assert complete("git theta ls", 2) == ["ls-files"]


def test_options() -> None:
    assert complete("git theta fsck --o", 3) == ["--objects"]
    assert complete("git theta status --color ''", 4) == ["auto", "always", "never"]


def test_options_of_git_before_the_command() -> None:
    assert complete("git -C somewhere theta un", 4, index="3") == ["uninstall", "untrack"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_accepts(shell: str) -> None:
    text = script(shell)
    assert "git-theta" in text
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=text, text=True, check=True)

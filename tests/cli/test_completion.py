from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

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


# -- file names ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a model in it."""
    (tmp_path / "model one.pt").touch()
    monkeypatch.chdir(tmp_path)


def needs(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")


def test_bash_is_left_to_find_files() -> None:
    assert complete("git theta show m", 3) == []
    assert complete("git theta resolve --take m", 4) == []


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("line", ["git theta show m", "git-theta show m", "git theta resolve --take m"])
def test_fish_completes_files(line: str) -> None:
    needs("fish")
    command = ["fish", "-c", f"{script('fish')}\ncomplete -C '{line}'"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "model one.pt\n"


def test_fish_completes_no_files_where_there_are_words() -> None:
    needs("fish")
    command = ["fish", "-c", f"{script('fish')}\ncomplete -C 'git theta size --by p'"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "parameter\npath\n"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("line", ["git theta show m", "git-theta show m"])
def test_zsh_completes_files(line: str) -> None:
    needs("zsh")
    start = 'PS1="> "; autoload -U compinit; compinit -u -D; eval "$(git theta completion zsh)"; echo rea""dy'
    reader, writer = pty.openpty()
    environment = {**os.environ, "TERM": "dumb"}
    with subprocess.Popen(["zsh", "-f", "-i"], stdin=writer, stdout=writer, stderr=writer, env=environment) as shell:
        try:
            os.write(reader, f"{start}\n".encode())
            assert "ready" in until(reader, "ready\r\n")
            os.write(reader, f"{line}\t".encode())
            assert f"{line}odel\\ one.pt" in until(reader, ".pt")
        finally:
            shell.kill()


def until(terminal: int, words: str) -> str:
    """What a terminal shows until it shows these words, or nothing more for ten seconds."""
    shown = ""
    while words not in shown and select.select([terminal], [], [], 10)[0]:
        shown += os.read(terminal, 1000).decode()
    return shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_accepts(shell: str) -> None:
    text = script(shell)
    assert "git-theta" in text
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=text, text=True, check=True)

"""What a shell is told to complete by: arguments of ``git btm`` that are files are completed as files."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from git_theta_btm.btm.cli import btm

FILES = [
    "data add legal",
    "data shard",
    "domains discover",
    "init --model",
    "init --tokenizer",
    "ensemble create law --prior",
    "ensemble create law --clusters",
    "eval --fewshot",
    "eval --jsonl",
    "average a.pt",
    "average --out",
    "average --base",
    "average --weights",
    "compare main",
    "prior acl --output",
    "import fairseq",
    "import fairseq m.pt --dict",
    "export hf main",
]


def kinds(line: str) -> list[str]:
    found = ShellComplete(btm, {}, "git-btm", "_GIT_BTM_COMPLETE").get_completions(line.split(), "")
    return [item.type for item in found]


@pytest.mark.parametrize("line", FILES)
def test_files(line: str) -> None:
    assert kinds(line) == ["file"]


def test_folders() -> None:
    assert kinds("import hf") == ["dir"]
    assert kinds("data shard huge.jsonl --output") == ["dir"]


def test_what_is_no_file() -> None:
    assert kinds("branch") == []
    assert set(kinds("domains preset")) == {"plain"}

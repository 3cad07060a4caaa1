"""Which of git's commands runs the driver."""

from __future__ import annotations

import pytest

from git_theta_btm.merging.caller import command_of, merges


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("git merge stash", "merge"),
        ("git -c a=b -C rebase cherry-pick merge", "cherry-pick"),
        ("/usr/lib/git-core/git --git-dir x --no-pager stash pop", "stash"),
        ("git --git-dir=merge --exec-path=rebase am", "am"),
        ("/usr/lib/git-core/git-rebase --continue", "rebase"),
        ("git --version", ""),
        ("git -c", ""),
        ("git", ""),
        ("sh -c git merge", ""),
        ("", ""),
    ],
)
def test_the_command_of_a_process(line: str, command: str) -> None:
    assert command_of(line.split()) == command


def test_names_of_heads_decide_where_no_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not merges()
    monkeypatch.setenv("GITHEAD_" + "0" * 40, "legal")
    assert merges()

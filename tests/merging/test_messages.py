"""Where trailers stand in a message: where git itself puts them."""

from __future__ import annotations

import re
import subprocess

import pytest

from git_theta_btm.merging.messages import insert, last_lines

OURS = re.compile(r"Ours-[A-Z]:")
LINES = ["Ours-A: one", "Ours-B: two"]
SCISSORS = "# ------------------------ >8 ------------------------\n# Do not modify\ndiff --git a b\n"

USUAL = [
    "",
    "Merge legal\n",
    "Merge legal\n\nA body: of one line and\nanother.\n",
    "Merge legal\n\nA body.\n\nSigned-off-by: A <a@b>\n",
    "Merge legal\n\nA body.\n\nSigned-off-by: A <a@b>\nReviewed-by: B <b@c>\n\n\n",
    "Merge legal\n\nFixes: 12\nTheta: x\n  continued\n",
    "Merge legal\n\nFree text\nmore\nand more\nSigned-off-by: A <a@b>\n",
    "Merge legal\n\nFree text\nmore\nand more\nand more\nSigned-off-by: A <a@b>\n",
    "Merge legal\n\n(cherry picked from commit 1234)\n",
    "Fixes: 12\n",
    "Merge branches 'a' and 'b'\n\n# Conflicts:\n#\tmodel.safetensors\n",
    "Merge legal\n\nSigned-off-by: A <a@b>\n\n# Conflicts:\n#\tmodel.safetensors\n#\n",
    "Merge legal\n\nA body.\n\n# Please enter\n\n# more\n" + SCISSORS,
    "Title: über\n\nKörper\n",
]
# git 2.39 leaves no blank line after a title that ends without a newline, and tears comments without a title apart.
MESSAGES = [*USUAL, "Merge legal", "\n", "# only\n# comments\n"]


@pytest.mark.parametrize("message", USUAL)
def test_where_git_puts_them(message: str) -> None:
    command = ["git", "interpret-trailers", "--no-divider", "--if-exists=add"]
    command += [word for line in LINES for word in ("--trailer", line)]
    git = subprocess.run(command, input=message.encode(), capture_output=True, check=True).stdout.decode()
    assert insert(message, LINES, OURS) == git


@pytest.mark.parametrize("message", MESSAGES)
def test_twice_is_once(message: str) -> None:
    once = insert(message, LINES, OURS)
    assert insert(once, LINES, OURS) == once
    assert insert(insert(message, ["Ours-A: other", "  continued", "Ours-C: x"], OURS), LINES, OURS) == once


@pytest.mark.parametrize("message", [message for message in MESSAGES if message.strip()])
def test_what_was_inserted_is_in_the_last_lines(message: str) -> None:
    assert last_lines(insert(message, LINES, OURS))[-2:] == LINES


def test_other_comments() -> None:
    message = "Merge\n\n# 1 is no comment\n\n; Conflicts:\n;\ta\n"
    assert (
        insert(message, ["Ours-A: 1"], OURS, ";") == "Merge\n\n# 1 is no comment\n\nOurs-A: 1\n\n; Conflicts:\n;\ta\n"
    )


def test_lines_that_are_continued_are_one() -> None:
    assert last_lines("Title\r\n\r\nA: 1\r\n  2\r\nB: 3\r\n") == ["A: 1 2", "B: 3"]


def test_a_title_is_no_paragraph_of_trailers() -> None:
    assert last_lines("Ours-A: 1\n") == [""]
    assert last_lines("") == [""]

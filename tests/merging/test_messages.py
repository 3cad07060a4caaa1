"""Where trailers stand in a message: where git itself puts them."""

from __future__ import annotations

import re
import subprocess

import pytest

from git_theta_btm.merging.messages import insert, lines_from

OURS = re.compile(r"Ours-[A-Z]:")
FIRST = re.compile("Ours-A:")
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


@pytest.mark.parametrize(
    "message", [message for message in MESSAGES if message.strip() and not message.startswith("#")]
)
def test_what_was_inserted_is_read_again(message: str) -> None:
    assert [line for line in lines_from(insert(message, LINES, OURS), FIRST) if OURS.match(line)] == LINES


BELOW = ["", "\n", "\nJIRA-12\n", "\n# Conflicts:\n#\ta\n\nJIRA-12: done\n", "JIRA-12\n", "\n    quoted\n\nOther: 1\n"]


@pytest.mark.parametrize("below", BELOW)
def test_text_below_does_not_matter(below: str) -> None:
    message = insert("Merge\n\nBody.\n", LINES, OURS) + below
    assert lines_from(message, FIRST)[:2] == LINES
    moved = insert(message, ["Ours-A: two"], OURS)
    assert moved.count("Ours-") == 1 and "\n\n\n" not in moved
    assert [line for line in moved.split() if line not in ("Ours-A:", "two")] == ["Merge", "Body.", *below.split()]


def test_lines_that_gaps_part_belong_together() -> None:
    found = lines_from("T\n\nOurs-A: 1\n\ntext\n\nOurs-B: 2\n", FIRST)
    assert found == ["Ours-A: 1", "", "text", "", "Ours-B: 2", ""]


def test_the_last_of_several_counts() -> None:
    assert lines_from("T\n\nOurs-A: 1\nOurs-B: 2\n\nOurs-A: 3\n", FIRST) == ["Ours-A: 3", ""]


def test_other_comments() -> None:
    message = "Merge\n\n# 1 is no comment\n\n; Conflicts:\n;\ta\n"
    assert (
        insert(message, ["Ours-A: 1"], OURS, ";") == "Merge\n\n# 1 is no comment\n\nOurs-A: 1\n\n; Conflicts:\n;\ta\n"
    )


def test_lines_that_are_continued_are_one() -> None:
    assert lines_from("Title\r\n\r\nOurs-A: 1\r\n  2\r\nB: 3\r\n", FIRST) == ["Ours-A: 1 2", "B: 3", ""]


@pytest.mark.parametrize("message", ["Ours-A: 1\n", "\nOurs-A: 1\n\nBody\n", "", "Title\n\n    Ours-A: quoted\n"])
def test_a_title_is_no_paragraph_of_trailers(message: str) -> None:
    assert lines_from(message, FIRST) == []


def test_what_no_commit_keeps_is_not_read() -> None:
    assert lines_from(f"Title\n\n{SCISSORS}\nOurs-A: 1\n", FIRST) == []

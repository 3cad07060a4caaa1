"""Records of merges in messages that hooks of others and people have worked on."""

from __future__ import annotations

from pathlib import Path

import pytest
from branches import message, theta, trio, trio_template
from conftest import Repo

__all__ = ["trio", "trio_template"]

APPENDS = 'printf "\\nSee the board for JIRA-12.\\nMore of it below.\\n" >> "$1"'
WRAPS = """python3 - "$1" <<'end'
import sys
with open(sys.argv[1]) as file:
    title, _, rest = file.read().partition("\\n")
with open(sys.argv[1], "w") as file:
    record = rest.replace("Theta-Expert", "\\nTheta-Expert", 1).strip()
    file.write(f"{title}\\n\\nAbove.\\n\\n{record}\\n\\nBelow: a table\\n    Theta-Merge: quoted\\n\\nThe end.\\n")
end"""


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def hook(repo: Repo, text: str) -> None:
    """Somebody else's part of the hook, below ours."""
    path = repo.path / ".git/hooks/prepare-commit-msg"
    ours = path.read_text() if path.exists() else "#!/bin/sh\n"
    path.write_text(f"{ours}{text}\n")


@pytest.fixture
def legal(trio: Repo) -> Repo:
    trio.git("checkout", "--quiet", "legal")
    return trio


def known_to_git(repo: Repo) -> str:
    return repo.git("log", "-1", "--format=%(trailers:key=Theta-Merge,valueonly)").strip()


@pytest.mark.parametrize("words", [["--edit"], ["--no-edit", "-s", "theta"]], ids=["driver", "strategy"])
def test_a_hook_that_appends_below_the_comments(legal: Repo, words: list[str]) -> None:
    hook(legal, APPENDS)
    legal.git("merge", "--quiet", *words, "medical")
    assert message(legal).strip().endswith("More of it below.")
    assert known_to_git(legal) == ""
    theta(legal, "verify")
    assert "JIRA-12" not in theta(legal, "verify", "--json").stdout
    legal.git("merge", "--quiet", *words, "code")  # in which the first merge counts as two
    assert " 2.0 legal mass=2.0\n" in message(legal)
    theta(legal, "verify")


def test_git_theta_merge_puts_the_record_at_the_end(legal: Repo) -> None:
    hook(legal, APPENDS)
    theta(legal, "merge", "medical")
    assert known_to_git(legal).startswith("average ")
    assert message(legal).count("Theta-Merge:") == message(legal).count("JIRA-12") == 1
    theta(legal, "verify")


def test_an_editor_that_leaves_it_in_the_middle(legal: Repo, tmp_path: Path) -> None:
    legal.git("config", "core.editor", program(tmp_path / "editor", WRAPS))
    legal.run("merge", "--quiet", "--edit", "medical", env={"GIT_EDITOR": str(tmp_path / "editor")})
    assert message(legal).strip().endswith("The end.")
    theta(legal, "verify")


def test_a_model_that_is_another_after_the_merge_is_not_recorded(legal: Repo) -> None:
    theta(legal, "merge", "--no-commit", "medical")
    assert "Theta-Merge: average" in (legal.path / ".git/MERGE_MSG").read_text()
    for model in legal.git("ls-files", "*.safetensors", "*.pt").split():
        legal.git("checkout", "HEAD", "--", model)
    legal.git("commit", "--quiet", "--no-edit")
    assert legal.git("log", "-1", "--format=%P").count(" ") == 1
    assert "Theta-" not in message(legal)
    assert message(legal).startswith("Merge branch 'medical'")

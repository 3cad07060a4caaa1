"""A rebase that repeats merges makes them as they were made first, and records the commits of now."""

from __future__ import annotations

import pytest
from branches import MODEL, branch, merged, message, parents, same, sprout, theta, trio, trio_template
from conftest import Repo

__all__ = ["trio", "trio_template"]


def rebase(repo: Repo, *words: str) -> int:
    return repo.run("rebase", "--quiet", "--rebase-merges", *words, "upstream", check=False).returncode


@pytest.fixture
def repo(trio: Repo) -> Repo:
    """The experts, and a commit that they are to begin from."""
    branch(trio, "upstream", {"notes.txt": b"notes"})
    trio.git("checkout", "--quiet", "-B", "work", "legal")
    return trio


def test_strategy_weights_and_base(repo: Repo) -> None:
    theta(repo, "merge", "medical", "-s", "ties", "-o", "density=0.5", "--weights", "0.9,0.1")
    before, text = merged(repo), message(repo)
    assert rebase(repo) == 0
    assert same(merged(repo), before)
    again = message(repo)
    assert [line for line in again.splitlines() if line.startswith(("Theta-Merge", "Theta-Version"))] == [
        line for line in text.splitlines() if line.startswith(("Theta-Merge", "Theta-Version"))
    ]
    experts = [line.split()[1:] for line in again.splitlines() if line.startswith("Theta-Expert")]
    assert [words[0] for words in experts] == parents(repo)
    assert [words[1] for words in experts] == ["0.9", "0.1"]
    assert f"Theta-Base: {repo.git('rev-parse', 'upstream')}" in again.splitlines()
    assert again.count("Theta-Merge") == 1
    assert theta(repo, "verify").stdout == ""


@pytest.mark.slow
def test_a_base_that_was_named_stays(repo: Repo) -> None:
    theta(repo, "merge", "medical", "-s", "ties", "--base", "code")
    before = merged(repo)
    assert rebase(repo) == 0
    assert same(merged(repo), before)
    assert f"Theta-Base: {repo.git('rev-parse', 'code')}" in message(repo).splitlines()
    theta(repo, "verify")


@pytest.mark.slow
def test_a_merge_that_recorded_nothing_is_made_as_configured(repo: Repo) -> None:
    repo.git("merge", "--quiet", "--no-commit", "medical")
    repo.git("commit", "--quiet", "--no-verify", "-m", "merge")
    repo.git("commit", "--quiet", "--amend", "-m", "Merge branch 'medical'")
    repo.git("config", "theta.merge.strategy", "task_arithmetic")
    assert rebase(repo) == 0
    assert "Theta-Merge: task_arithmetic" in message(repo)
    assert [line.split()[3] for line in message(repo).splitlines() if line.startswith("Theta-Expert")][1] == "medical"
    theta(repo, "verify")


def test_what_a_person_decided_is_asked_again(repo: Repo) -> None:
    repo.write(".git/info/attributes", f"{MODEL} -theta-merge\n".encode())
    assert repo.run("merge", "medical", check=False).returncode == 1
    theta(repo, "resolve", "--theirs")
    repo.git("commit", "--quiet", "--no-edit")
    (repo.path / ".git/info/attributes").unlink()
    before = merged(repo)
    assert "Theta-File-Taken" in message(repo)
    assert rebase(repo) == 1
    theta(repo, "resolve", "--theirs")
    repo.git("rebase", "--continue")
    assert same(merged(repo), before)
    assert message(repo).count("Theta-File-Taken") == 1
    theta(repo, "verify")


@pytest.mark.slow
def test_other_models_are_picked_as_ever(repo: Repo) -> None:
    sprout(repo, {"text": {"text.txt": b"text"}}, "legal")
    repo.git("checkout", "--quiet", "-B", "work", "text")
    before = merged(repo)
    assert rebase(repo) == 0
    assert same(merged(repo), before)
    assert "Theta-Merge" not in message(repo)

"""``git merge -s theta``: any number of experts become one model, in one commit, and git says and does all else."""

from __future__ import annotations

import pytest
from conftest import Repo
from experts import MODEL, branch, branched, check, expert, mean, parents, plus, repo, rounded

__all__ = ["branched", "repo"]


def theta(repo: Repo, *words: str) -> None:
    repo.git("merge", "--quiet", "--no-edit", "-s", "theta", *words)


def trailers(repo: Repo, revision: str = "HEAD") -> list[str]:
    text = repo.git("log", "-1", "--format=%(trailers:only,unfold)", revision)
    return [line for line in text.splitlines() if line.startswith("Theta-")]


@pytest.mark.parametrize("names", [("legal", "medical"), ("legal", "medical", "code")])
def test_an_untouched_main_is_no_expert(repo: Repo, names: tuple[str, ...]) -> None:
    theta(repo, "--no-ff", *names)
    check(repo, mean(*(expert(number + 1) for number in range(len(names)))))
    parents(repo, "main~", *names) if len(names) > 1 else None
    assert sum(line.startswith("Theta-Expert: ") for line in trailers(repo)) == len(names)
    assert (repo.path / "medical.txt").exists()
    assert (repo.path / "README").read_text() == "legal\n"


def test_a_head_with_commits_of_its_own_counts(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "code")
    theta(repo, "legal", "medical")
    check(repo, mean(expert(3), expert(1), expert(2)))
    parents(repo, "code~", "legal", "medical")
    assert [line.split()[-1] for line in trailers(repo) if "Expert" in line] == ["code", "legal", "medical"]


def test_a_head_whose_model_is_the_seeds_does_not(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "notes")
    theta(repo, "legal", "medical")
    check(repo, mean(expert(1), expert(2)))
    parents(repo, "notes~", "legal", "medical")


def test_twins_count_twice(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "twin", "medical")
    check(repo, mean(expert(1), expert(1), expert(2)))
    repo.git("checkout", "--quiet", "-B", "other", "main")


def test_twins_alone(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "twin")
    check(repo, expert(1))


def test_weights_and_methods(repo: Repo) -> None:
    theta(repo, "--no-ff", "-X", "weights=1,3", "legal", "medical")
    check(repo, mean(expert(1), expert(2), weights=(1, 3)))
    repo.git("reset", "--quiet", "--hard", "seed")
    theta(repo, "--no-ff", "-X", "weights=medical=3,legal=1", "legal", "medical")
    check(repo, mean(expert(1), expert(2), weights=(1, 3)))
    repo.git("reset", "--quiet", "--hard", "seed")
    theta(repo, "--no-ff", "-X", "strategy=task_arithmetic", "-X", "lambda=0.5", "legal", "medical")
    expected = expert(0)
    for number in (1, 2):
        expected = plus(expected, mean(expert(number), expert(0)), expert(0))
    check(repo, expected)


def test_one_after_the_other_is_all_at_once(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "medical")
    theta(repo, "code")
    check(repo, mean(rounded(mean(expert(1), expert(2))), expert(3), weights=(2, 1)))
    assert any(line.endswith("main mass=2.0") for line in trailers(repo))


def test_a_driver_goes_on_where_the_strategy_ended(repo: Repo) -> None:
    theta(repo, "--no-ff", "legal", "medical")
    repo.git("merge", "--quiet", "--no-edit", "code")
    check(repo, mean(rounded(mean(expert(1), expert(2))), expert(3), weights=(2, 1)))


def test_one_head(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "legal")
    theta(repo, "medical")
    check(repo, mean(expert(1), expert(2)))
    theta(repo, "notes")
    check(repo, mean(expert(1), expert(2)))
    assert not trailers(repo)
    theta(repo, "--no-ff", "seed")


def test_one_sided(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "notes")
    theta(repo, "legal")
    check(repo, expert(1))
    repo.git("checkout", "--quiet", "medical")
    branch(repo, "more", "seed", {"more.txt": b"more"})
    repo.git("checkout", "--quiet", "medical")
    theta(repo, "notes~", "more")
    parents(repo, "medical~", "more")
    check(repo, expert(2))


def test_a_conflict_in_a_text(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "code")
    done = repo.run("merge", "-s", "theta", "legal", "clash", check=False)
    assert done.returncode == 1
    assert b"CONFLICT" in done.stderr
    assert repo.git("ls-files", "-u").count("README") == 3
    assert "<<<<<<<" in (repo.path / "README").read_text()
    check(repo, mean(expert(3), expert(1), expert(4)), status=f"UU README\nM  {MODEL}")
    repo.git("merge", "--abort")
    check(repo, expert(3))
    assert (repo.path / "README").read_text() == "hello\n"
    assert repo.run("merge", "-s", "theta", "legal", "clash", check=False).returncode == 1
    repo.write("README", b"both\n")
    repo.git("add", "README")
    repo.git("merge", "--continue")
    parents(repo, "code~", "legal", "clash")
    check(repo, mean(expert(3), expert(1), expert(4)))
    assert trailers(repo)


@pytest.mark.parametrize(
    ("key", "value", "word"), [("h.1.w", (40, 31), "shapes"), ("steps", (4,), "I64")], ids=["shapes", "integers"]
)
def test_a_conflict_in_a_model(repo: Repo, key: str, value: tuple[int, ...], word: str) -> None:
    import numpy as np

    other = {**expert(5), key: np.ones(value, expert(0)[key].dtype)}
    repo.git("checkout", "--quiet", "medical")
    branch(repo, "other", "seed", {MODEL: other, "x": b"x"})
    last = {**expert(2), "steps": np.zeros(4, "i8")}
    branch(repo, "base", "medical", {MODEL: last})
    done = repo.run("merge", "-s", "theta", "other", "code", check=False)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert sum(MODEL in line and key in line and word in line for line in lines) == 1, lines
    check(repo, last)
    assert not (repo.path / ".git" / "MERGE_HEAD").exists()
    assert not (repo.path / ".git" / "THETA_MERGE").exists()
    assert not (repo.path / "x").exists()

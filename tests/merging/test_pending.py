"""How a merge was made, between the merge and its commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Repo

from git_theta_btm.git import Git
from git_theta_btm.merging import pending
from git_theta_btm.merging.recipe import Recipe
from git_theta_btm.merging.trailers import Expert, Record, loads

RECORD = Record(Recipe(weights=(1.0, 1.0)), (Expert("a" * 40, "one"), Expert("b" * 40, "two")))
TIES = Recipe("ties", weights=(1.0, 1.0))


@pytest.fixture
def merging(repo: Repo) -> Git:
    """A merge that waits for its commit."""
    repo.git("checkout", "--quiet", "-b", "other")
    repo.write("a", b"a")
    repo.commit()
    repo.git("checkout", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "--no-commit", "other")
    return Git(str(repo.path))


def heads(git: Git) -> list[str]:
    return git.text("rev-parse", "HEAD", "MERGE_HEAD").split()


def staged(git: Git) -> dict[str, str]:
    return {"a": git.text("rev-parse", ":a")}


def kept(git: Git) -> Path:
    return Path(git.directory) / ".git" / "THETA_MERGE"


def test_the_merge_that_it_is_about(merging: Git) -> None:
    pending.write(merging, RECORD, heads(merging), staged(merging))
    assert pending.take(merging)[0].startswith("Theta-Merge: average")
    assert pending.left(merging)[0] == heads(merging)
    assert pending.merging(merging) == heads(merging)[1:]
    pending.forget(merging)
    assert pending.take(merging) == []
    assert pending.left(merging) == ([], [])
    pending.forget(merging)


def test_other_heads(merging: Git) -> None:
    pending.write(merging, RECORD, heads(merging)[::-1], staged(merging))
    assert pending.take(merging) == []
    pending.write(merging, RECORD, heads(merging), staged(merging))
    merging.run("merge", "--abort")
    assert pending.take(merging) == []
    assert pending.merging(merging) == []


def test_another_merge_of_the_same_heads(merging: Git) -> None:
    pending.write(merging, RECORD, heads(merging), {"a": "0" * 40})
    assert pending.take(merging) == []
    pending.write(merging, RECORD, heads(merging), staged(merging))
    assert pending.take(merging)
    pending.write(merging, RECORD, heads(merging), {"b": "1" * 40})  # of another file
    assert pending.take(merging)
    merging.run("rm", "--quiet", "--cached", "a")
    assert pending.take(merging) == []


def test_each_file_keeps_its_own_way(merging: Git) -> None:
    for name in "bc":
        (Path(merging.directory) / name).write_text(name)
    merging.run("add", "--all")
    blob = {name: merging.text("rev-parse", f":{name}") for name in "abc"}
    pending.write(merging, replace(RECORD, files={"c": TIES}), heads(merging), {"b": blob["b"], "c": blob["c"]})
    pending.write(merging, RECORD, heads(merging), {"a": blob["a"]})
    lines = pending.take(merging)
    assert loads("Merge\n\n" + "\n".join(lines)) == replace(RECORD, files={"c": TIES})
    merging.run("mv", "c", "d")
    assert "Theta-File: d ties missing=error vocabulary=strict" in pending.take(merging)
    merging.run("rm", "--quiet", "--cached", "d")
    assert pending.take(merging)[-1] == "Theta-Version: 1"
    merging.run("rm", "--quiet", "--cached", "a", "b")
    assert pending.take(merging) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"heads": 1}', '{"heads": []}', "[" * 100_000, "\\udcff"])
def test_a_broken_record_is_none(merging: Git, text: str) -> None:
    kept(merging).write_text(text)
    assert pending.take(merging) == []
    pending.write(merging, RECORD, heads(merging), staged(merging))
    assert pending.take(merging)


def test_before_the_first_commit(merging: Git) -> None:
    pending.write(merging, RECORD, heads(merging), staged(merging))
    merging.run("symbolic-ref", "HEAD", "refs/heads/unborn")
    assert pending.take(merging) == []

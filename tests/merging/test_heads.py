"""What each head of a merge has of a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.merging.heads import Head, Merge, Place, Trees, commit_of, common_ancestor
from git_theta_btm.repository import Repository

MODEL = "m.safetensors"


@pytest.fixture
def trees(repo: Repo) -> Iterator[Trees]:
    """A seed on main; one and two change the model, moved has it under another name, text is a branch without one."""
    repo.write(MODEL, {"w": np.zeros(9, "f4")})
    repo.commit("seed")
    for number, name in enumerate(("one", "two"), 1):
        repo.git("checkout", "--quiet", "-b", name, "main")
        repo.write(MODEL, {"w": np.full(9, number, "f4")})
        repo.commit(name)
    repo.git("checkout", "--quiet", "-b", "moved", "main")
    repo.git("mv", MODEL, "é.safetensors")
    repo.commit("moved")
    repo.git("checkout", "--quiet", "-b", "text", "main~")
    repo.write(MODEL, b"no model, and none of the filter's")
    repo.git("-c", "filter.theta.clean=cat", "add", ".")
    repo.git("commit", "--quiet", "-m", "text")
    repo.git("checkout", "--quiet", "--force", "main")
    git = Git(str(repo.path))
    with git.blobs() as blobs:
        yield Trees(git, blobs)


def test_where_a_blob_is(trees: Trees) -> None:
    seed = trees.entry("main", MODEL)
    assert seed
    assert trees.entry("main~", MODEL) is None
    assert trees.entry("main", "m.safe*") is None  # a name, and no pattern
    assert trees.find("main", MODEL) == Place(MODEL, seed)
    assert trees.find("moved", MODEL) is None
    assert trees.find("moved", MODEL, [seed]) == Place("é.safetensors", seed)
    assert trees.before("main", [Head("moved", "m"), Head("one", "o")], "é.safetensors", [seed]) is None
    known = [seed, trees.entry("one", MODEL) or ""]
    assert trees.before("main", [Head("moved", "m"), Head("one", "o")], "é.safetensors", known) == seed


def test_a_head_that_left_it_as_it_was_is_no_expert(trees: Trees) -> None:
    heads = [Head(name, name) for name in ("main", "one", "two")]
    assert [side.head.name for side in trees.sides(heads, "main", MODEL)] == ["one", "two"]
    assert [side.head.name for side in trees.sides(heads, None, MODEL)] == ["main", "one", "two"]
    assert [side.head.name for side in trees.sides(heads[:1], "main", MODEL)] == ["main"]
    assert trees.sides([Head("text", "text")], "main", MODEL) == []


def test_models_of_a_commit(trees: Trees) -> None:
    assert list(trees.models("moved")) == ["é.safetensors"]
    assert trees.models("text") == {}


def test_a_head_that_another_one_has_is_no_expert(repo: Repo, trees: Trees) -> None:
    repository = Repository(str(repo.path))
    one, two = (Head(trees.git.text("rev-parse", name), name) for name in ("one", "two"))
    assert Merge(repository, [one, two], []).experts == [one, two]
    repo.git("checkout", "--quiet", "one")
    found = Merge(repository, [two], ["main", "y"])
    assert found.experts == [Head(one.commit, "one"), two]
    assert found.base == "main"
    repo.git("checkout", "--quiet", "--detach")
    assert Merge(repository, [two], []).ours == Head(one.commit, "HEAD")


def test_a_head_that_trained_nothing_is_no_expert(repo: Repo, trees: Trees) -> None:
    one, two = (Head(trees.git.text("rev-parse", name), name) for name in ("one", "two"))
    base = trees.git.text("rev-parse", "main")
    repo.git("checkout", "--quiet", "main")
    repo.write("notes.txt", b"text")
    repo.commit("notes")
    assert Merge(Repository(str(repo.path)), [one, two], [base]).experts == [one, two]


def test_ancestors(trees: Trees) -> None:
    main = trees.git.text("rev-parse", "main")
    assert common_ancestor(trees.git, ["one", "two"]) == main
    assert common_ancestor(trees.git, ["one", "two", "text"]) == trees.git.text("rev-parse", "main~")
    assert commit_of(trees.git, "main") == main
    for name in ("nowhere", "--all", f"main:{MODEL}"):
        with pytest.raises(ThetaError, match="there is no commit"):
            commit_of(trees.git, name)

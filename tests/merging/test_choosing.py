"""The recipe of one merge, from the configuration, the attributes and ``-X``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import Repo
from safetensors.numpy import save

from git_theta_btm.errors import UsageError
from git_theta_btm.git import Git
from git_theta_btm.merging.choosing import choose, mass, part
from git_theta_btm.merging.heads import Head, Merge
from git_theta_btm.merging.recipe import Recipe, Rule
from git_theta_btm.merging.trailers import Expert, Record, dumps
from git_theta_btm.repository import Repository

PATH = "m.safetensors"
PAIR = Record(Recipe(weights=(1.0, 1.0)), (Expert("a" * 40, "one"), Expert("b" * 40, "two")))


@pytest.fixture
def merge(repo: Repo) -> Merge:
    """main holds two experts; other is one."""
    git = Git(str(repo.path))
    repo.git("checkout", "--quiet", "-b", "other")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "other")
    repo.git("checkout", "--quiet", "main")
    repo.write(PATH, save({"w": np.zeros(4, np.float32)}))
    repo.git("add", ".")
    pair = replace(PAIR, experts=(Expert(git.text("rev-parse", "HEAD"), "one"), PAIR.experts[1]))  # squashed
    repo.git("commit", "--quiet", "-m", "merged\n\n" + "\n".join(dumps(pair)))
    return Merge(
        Repository(str(repo.path)), [Head(git.text("rev-parse", "other"), "other")], [git.text("rev-parse", "main~")]
    )


def test_experts_that_a_head_holds_count(merge: Merge, repo: Repo) -> None:
    git = Git(str(repo.path))
    assert mass(git, merge.ours) == 2.0
    assert mass(git, merge.remotes[0]) == 1.0
    assert choose(git, merge, ()).whole(PATH).weights == (2.0, 1.0)
    assert choose(git, merge, [("weights", "1,1")]).whole(PATH).weights == (1.0, 1.0)
    assert choose(git, merge, [("strategy", "task_arithmetic")]).whole(PATH).weights == (1.0, 1.0)
    assert [expert.mass for expert in choose(git, merge, ()).record(PATH).experts] == [2.0, 1.0]


def test_what_was_trained_since_is_one_expert(merge: Merge, repo: Repo) -> None:
    git = Git(str(repo.path))
    repo.write("notes.txt", b"text")
    repo.commit("notes")
    head = Head(git.text("rev-parse", "HEAD"), "main")
    assert mass(git, head) == 2.0
    repo.write(PATH, save({"w": np.ones(4, np.float32)}))
    repo.commit("trained")
    assert mass(git, Head(git.text("rev-parse", "HEAD"), "main")) == 1.0


def test_places(merge: Merge, repo: Repo) -> None:
    git = Git(str(repo.path))
    repo.git("config", "theta.merge.strategy", "ties")
    assert choose(git, None, ()).plain(PATH).strategy == "ties"
    repo.write(".git/info/attributes", f"{PATH} theta-merge=slerp\n".encode())
    assert choose(git, merge, ()).whole(PATH).strategy == "slerp"
    assert choose(git, merge, ()).whole("other.pt").strategy == "ties"
    assert choose(git, merge, [("strategy", "average")]).whole(PATH).strategy == "average"
    found = choose(git, merge, [("tokenizer", "t.json"), ("statistics", "f.pt"), ("device", "cuda")])
    assert (found.device, found.whole(PATH).tokenizer, found.whole(PATH).statistics) == ("cuda", "t.json", "f.pt")
    assert found.whole(PATH).vocabulary == "ours"


def test_the_base(merge: Merge, repo: Repo) -> None:
    git = Git(str(repo.path))
    assert choose(git, merge, ()).base == merge.base
    assert choose(git, merge, [("base", "other")]).base == merge.remotes[0].commit


@pytest.mark.parametrize(
    "pair", [("nonsense", "1"), ("weights", "1,2,3"), ("weights", "nobody=1"), ("strategy", "none")]
)
def test_what_makes_no_sense(merge: Merge, repo: Repo, pair: tuple[str, str]) -> None:
    with pytest.raises(UsageError):
        choose(Git(str(repo.path)), merge, [pair]).record(PATH)


def test_a_part_of_the_heads() -> None:
    rules = (Rule(("a",), weights=(4.0, 5.0, 6.0)), Rule(("b",), "ours"))
    found = part(Recipe(weights=(1.0, 2.0, 3.0), rules=rules), [0, 2])
    assert found.weights == (1.0, 3.0)
    assert [rule.weights for rule in found.rules] == [(4.0, 6.0), ()]

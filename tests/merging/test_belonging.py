"""A record counts where its merge was made, and not where a pick or a rebase has carried it."""

from __future__ import annotations

import pytest
from branches import MODEL, branch, message, pack, parents, theta, trained, trio, trio_template
from conftest import Repo

from git_theta_btm.git import Git
from git_theta_btm.merging import trailers
from git_theta_btm.merging.belonging import belongs, parents_of
from git_theta_btm.merging.choosing import mass
from git_theta_btm.merging.heads import Head
from git_theta_btm.merging.verifying import Difference, verify
from git_theta_btm.repository import Repository

__all__ = ["trio", "trio_template"]


def counted(repo: Repo, revision: str = "HEAD") -> tuple[bool, float]:
    """Whether the record of a commit is its own, and how many experts it holds."""
    git = Git(str(repo.path))
    record = trailers.loads(message(repo, revision))
    assert record
    commit = repo.git("rev-parse", revision)
    return belongs(git, record, commit), mass(git, Head(commit, revision))


def test_merges(trio: Repo) -> None:
    assert counted(trio, "both") == (True, 2.0)
    trio.git("checkout", "--quiet", "both")
    theta(trio, "merge", "code")
    assert counted(trio) == (True, 3.0)
    trio.git("checkout", "--quiet", "main")
    theta(trio, "merge", "medical", "code", "legal")
    assert counted(trio) == (True, 3.0)


@pytest.mark.parametrize(
    "start", ["later", *(pytest.param(name, marks=pytest.mark.slow) for name in ("main", "legal"))]
)
def test_a_squash_has_the_record_of_its_merge(trio: Repo, start: str) -> None:
    branch(trio, "later", {"notes.txt": b"since the experts began"})
    trio.git("checkout", "--quiet", "-B", "work", start)
    theta(trio, "merge", "--squash", "legal" if start != "legal" else "code", "medical")
    trio.git("commit", "--quiet", "--no-edit")
    assert len(parents(trio)) == 1
    assert counted(trio) == (True, 2.0 if start != "legal" else 3.0)
    assert verify(Repository(str(trio.path)), "HEAD").differences == ()


def test_a_pick_of_a_merge_has_the_record_of_another(trio: Repo) -> None:
    branch(trio, "fourth", {MODEL: pack(trained(9))})
    trio.git("checkout", "--quiet", "fourth")
    trio.git("cherry-pick", "-m", "1", "both")
    assert counted(trio) == (False, 1.0)
    (difference,) = verify(Repository(str(trio.path)), "HEAD").differences
    assert (difference.path, difference.parameter) == ("", "")
    assert "of another commit" in theta(trio, "verify", code=1).stdout


def test_an_edited_merge_is_still_named_parameter_by_parameter(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "both")
    trio.write(MODEL, pack({**trained(1), "h.0.w": trained(9)["h.0.w"]}))
    trio.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    found = verify(Repository(str(trio.path)), "HEAD").differences
    assert [type(item) for item in found] == [Difference] * len(found)
    assert {item.path for item in found} == {MODEL}


def test_parents_are_known_where_the_history_is_cut_off(trio: Repo, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("shallow") / "clone"
    trio.git("clone", "--quiet", "--no-checkout", "--depth=1", "--branch=both", f"file://{trio.path}", str(path))
    clone = Repo(path)
    assert parents(clone) == []
    assert parents_of(Git(str(path)), "HEAD") == parents(trio, "both")
    assert counted(clone) == (True, 2.0)

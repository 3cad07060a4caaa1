"""What a model is while git merges everything else."""

from __future__ import annotations

import pytest
from conftest import Repo

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git
from git_theta_btm.merging.gathering import append, gather, merge_trees, split

TEXT = b"git-theta-btm manifest 1: a model\nparam a F32[2] 00\n"
FIRST, SECOND, THIRD = ("a" * 40, "b" * 40, "c" * 40)


def test_a_plain_manifest_gathers_nothing() -> None:
    assert split(TEXT) == (TEXT, [])
    assert split(b"") == (b"", [])


def test_blobs_are_gathered_in_order() -> None:
    two = append(TEXT, FIRST, TEXT + b"x\n", SECOND)
    assert split(two) == (TEXT, [FIRST, SECOND])
    assert split(append(two, "f" * 40, TEXT, THIRD)) == (TEXT, [FIRST, SECOND, THIRD])


@pytest.mark.parametrize(("ours", "theirs"), [(b"raw", TEXT), (TEXT, b"raw"), (TEXT, b"")])
def test_what_is_no_manifest_is_a_conflict(ours: bytes, theirs: bytes) -> None:
    with pytest.raises(ThetaError, match="parameter by parameter"):
        append(ours, FIRST, theirs, SECOND)


def test_texts_are_merged_and_conflicts_collected(repo: Repo) -> None:
    commits = []
    for number, files in enumerate([{}, {"t": b"1\n", "a": b""}, {"t": b"2\n"}, {"t": b"3\n", "c": b""}]):
        repo.git("checkout", "--quiet", "--detach", commits[0] if commits else "main")
        for path, content in files.items():
            repo.write(path, content)
        commits.append(repo.commit(str(number)) if files else repo.git("rev-parse", "HEAD"))
    git = Git(str(repo.path))
    found = gather(git, commits, "false")
    assert set(repo.git("ls-tree", "--name-only", found.tree).splitlines()) == {".gitattributes", "a", "c", "t"}
    assert {(row.path, row.stage) for row in found.conflicts} == {("t", "2"), ("t", "3")}
    assert gather(git, commits[:2], "false").conflicts == ()
    with pytest.raises(ThetaError, match="git merge-tree failed"):
        merge_trees(git, "nowhere", commits[0], "false")

"""Results in git: found again, by other clones too, and whole whoever writes at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Repo

from git_theta_btm.btm.evaluating.perplexity import Score
from git_theta_btm.btm.evaluating.results import REF, Cell, Results
from git_theta_btm.git import Git

WRITER = """
import sys
from git_theta_btm.btm.evaluating.results import Cell, Results
from git_theta_btm.btm.evaluating.perplexity import Score
from git_theta_btm.git import Git
for number in range(4):
    Results(Git(sys.argv[1])).put({Cell(sys.argv[2] * 64, "d" * 64, 2 + number): Score(1.5, 2)})
"""


def cell(model: str = "a", block: int = 16) -> Cell:
    return Cell(model * 64, "d" * 64, block)


def test_what_was_put_is_there_and_no_branch_shows_it(repo: Repo) -> None:
    results, score = Results(Git(str(repo.path))), Score(12.345678901234567, 7)
    before = repo.git("status", "--porcelain"), repo.git("log", "--oneline", "--branches")
    assert results.get([cell()]) == {}
    results.put({cell(): score, cell("b"): Score(1.0, 1)})
    assert results.get([cell(), cell("c"), cell(block=17)]) == {cell(): score}
    assert (repo.git("status", "--porcelain"), repo.git("log", "--oneline", "--branches")) == before
    tip = repo.git("rev-parse", REF)
    results.put({cell(): score})
    assert repo.git("rev-parse", REF) == tip  # nothing new, no commit
    results.put({cell(): Score(2.0, 1)})
    assert results.get([cell()])[cell()].loss == 2.0
    assert repo.git("ls-tree", "-r", "--name-only", REF).split("\n")[0] == cell().path


def test_without_an_identity(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    repo.git("config", "user.useConfigOnly", "true")
    Results(Git(str(repo.path))).put({cell(): Score(1.0, 1)})
    assert repo.git("log", "-1", "--format=%an", REF) == "git btm"


def test_writers_at_the_same_time_lose_nothing(repo: Repo) -> None:
    command = [sys.executable, "-c", WRITER, str(repo.path)]
    writers = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    wanted = [cell(name, 2 + number) for name in "abc" for number in range(4)]
    assert Results(Git(str(repo.path))).get(wanted) == dict.fromkeys(wanted, Score(1.5, 2))
    assert repo.git("rev-list", "--count", REF) == "12"


def test_other_clones_share_them(repo: Repo, tmp_path: Path) -> None:
    repo.git("init", "--quiet", "--bare", str(tmp_path / "remote"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote"))
    repo.git("push", "--quiet", "origin", "main")
    repo.git("clone", "--quiet", str(tmp_path / "remote"), str(tmp_path / "other"))
    other = Repo(tmp_path / "other")
    here, there = Results(Git(str(repo.path))), Results(Git(str(other.path)))
    here.put({cell("a"): Score(1.0, 1), cell("c"): Score(3.0, 1)})
    there.put({cell("b"): Score(2.0, 1), cell("c"): Score(4.0, 1)})
    here.share("origin")
    there.share("origin")  # both have gone on: joined, not overwritten
    here.share("origin")
    for results in (here, there):
        found = results.get([cell(name) for name in "abc"])
        assert (found[cell("a")].loss, found[cell("b")].loss) == (1.0, 2.0)
    assert here.get([cell("c")]) == there.get([cell("c")])  # the same for all, once it is joined
    assert repo.git("rev-parse", REF) == other.git("rev-parse", REF)
    assert len(repo.git("log", "-1", "--format=%P", REF).split()) == 2


def test_what_was_only_fetched_counts(repo: Repo, tmp_path: Path) -> None:
    Results(Git(str(repo.path))).put({cell(): Score(1.0, 1)})
    repo.git("clone", "--quiet", str(repo.path), str(tmp_path / "other"))
    other = Repo(tmp_path / "other")
    other.git("config", "--add", "remote.origin.fetch", "+refs/btm/evals*:refs/btm/fetched/origin/evals*")
    other.git("fetch", "--quiet")
    assert Results(Git(str(other.path))).get([cell()]) == {cell(): Score(1.0, 1)}


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"null", b"{", b"[" * 4000, b'{"version": 1}', b"\xff",
        cell("b").dumps(Score(1.0, 1)),  # another cell's
        cell().dumps(Score(1.0, 1)).replace(b'"tokens": 1', b'"tokens": 0'),
        cell().dumps(Score(float("nan"), 3)),
        cell().dumps(Score(1.0, 1)).replace(b'"version": 1', b'"version": 2'),
        cell().dumps(Score(1.0, 1)).replace(b'"tokens": 1', b'"tokens": []'),
    ],
)  # fmt: skip
def test_a_document_that_somebody_broke_is_none(repo: Repo, document: bytes) -> None:
    oid = repo.run("hash-object", "-w", "--stdin", stdin=document).stdout.decode().strip()
    assert cell().loads(document) is None
    tree = f"100644 blob {oid}\t{'d' * 64}-16.json\n"
    for name in ("a" * 64, "aa"):
        tree = f"040000 tree {repo.run('mktree', stdin=tree.encode()).stdout.decode().strip()}\t{name}\n"
    root = repo.run("mktree", stdin=tree.encode()).stdout.decode().strip()
    repo.git("update-ref", REF, repo.git("commit-tree", root, "-m", "broken"))
    results = Results(Git(str(repo.path)))
    assert results.get([cell()]) == {}
    results.put({cell(): Score(5.0, 1)})
    assert results.get([cell()]) == {cell(): Score(5.0, 1)}

"""Conflicts that end with a side's version or with what a person made: their merges verify, and say what they are."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from branches import MODEL, branch, message, pack, seed, theta, trained
from conftest import Repo, surroundings

from git_theta_btm.cli import run
from git_theta_btm.merging.choosing import mass
from git_theta_btm.merging.heads import Head
from git_theta_btm.merging.verifying import Report, verify
from git_theta_btm.repository import Repository

COUNTER = "h.9.steps"
OTHER, THIRD = "other.safetensors", "third.safetensors"
ALL = (MODEL, OTHER, THIRD)
EXTRA = {"h.1.w": seed()["h.1.w"][:9]}


def data(number: int, **more: np.ndarray) -> bytes:
    return pack({"h.0.w": trained(number)["h.0.w"], COUNTER: np.array([number]), **more})


@pytest.fixture(scope="module")
def stuck(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In the middle of a merge of three models that no rule covers; the versions have other parameters, too."""
    repo = Repo(Path(shutil.copytree(template, tmp_path_factory.mktemp("stuck") / "repo", symlinks=True)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(repo.path.parent).items():
            patch.setenv(name, value)
        versions = [dict.fromkeys(ALL, data(number)) for number in (5, 1)]
        for path, content in versions[0].items():
            repo.write(path, content)
        repo.commit("seed")
        branch(repo, "theirs", dict.fromkeys(ALL, data(2, **EXTRA)))
        for path, content in versions[1].items():
            repo.write(path, content)
        repo.commit("mine")
        assert repo.run("merge", "theirs", check=False).returncode == 1
    yield repo.path


@pytest.fixture
def three(stuck: Path, tmp_path: Path) -> Repo:
    return Repo(Path(shutil.copytree(stuck, tmp_path / "stuck", symlinks=True)))


def resolve(repo: Repo, *words: str) -> None:
    with contextlib.chdir(repo.path):
        assert run(["resolve", *words]) == 0


def commit(repo: Repo) -> str:
    """The message of the merge, which is committed now."""
    repo.git("commit", "--quiet", "--no-edit")
    return message(repo)


def check(repo: Repo) -> Report:
    return verify(Repository(str(repo.path)), "HEAD")


def problems(repo: Repo) -> list[tuple[str, str]]:
    return [(item.path, item.problem) for item in check(repo).differences]


def experts(repo: Repo) -> float:
    """For how many the merge would count in another one."""
    return mass(Repository(str(repo.path)).git, Head(repo.git("rev-parse", "HEAD"), "it"))


def replaced(repo: Repo, path: str, content: bytes) -> None:
    """The last commit with another version of a file."""
    repo.write(path, content)
    repo.git("commit", "--quiet", "--all", "--amend", "--no-edit")


def corrupt(repo: Repo, revision: str) -> str:
    """One byte of an object of a version is another; returns its name."""
    manifest = repo.manifest(MODEL, revision)
    name = next(entry.digest for entry in manifest.entries if entry.name == "h.0.w")
    path = Path(repo.store.path(name))
    os.chmod(path, 0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return name


@pytest.mark.parametrize(("side", "revision"), [("ours", "HEAD"), ("theirs", "theirs"), ("base", "HEAD~")])
def test_a_side(three: Repo, side: str, revision: str) -> None:
    wanted = three.git("rev-parse", revision)
    resolve(three, f"--{side}")
    text = commit(three)
    assert f"Theta-File-Taken: {MODEL} {wanted}" in text and "Theta-Merge: none " in text
    report = check(three)
    assert report.differences == ()
    assert [(item.path, item.taken, item.by_hand) for item in report.models] == [(path, wanted, False) for path in ALL]
    assert experts(three) == 1
    name = corrupt(three, wanted)
    assert all(f"object {name} is corrupt" in problem for _, problem in problems(three))


def test_another_version_than_the_recorded_one(three: Repo) -> None:
    resolve(three, "--theirs")
    text = commit(three)
    stranger, theirs = three.git("commit-tree", "theirs^{tree}", "-m", "stranger"), three.git("rev-parse", "theirs")
    replaced(three, MODEL, data(2, **{"h.1.w": EXTRA["h.1.w"][:8]}))
    ((path, problem),) = problems(three)
    assert path == MODEL and problem.startswith("it is F32[8,64]")
    three.git("rm", "--quiet", MODEL)
    three.git("commit", "--quiet", "--amend", "-m", text.replace(f"{OTHER} {theirs}", f"{OTHER} {stranger}"))
    gone, foreign = sorted(problems(three))
    assert gone == (MODEL, "it is recorded, and not in the commit")
    assert foreign[0] == OTHER and foreign[1].endswith("which is no commit that was merged")


def test_by_hand(three: Repo, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(data(7))
    resolve(three, "--take", str(tmp_path / "made"), OTHER)
    resolve(three, THIRD, "--base")
    resolve(three, "--manual")
    three.write(MODEL, data(3))
    resolve(three, "--manual")
    text, digest, other = commit(three), three.manifest(MODEL).digest, three.manifest(OTHER).digest
    assert f"Theta-File-Manual: {MODEL} {digest}" in text and f"Theta-File-Manual: {OTHER} {other}" in text
    said = theta(three, "verify").stderr
    assert f"{MODEL}: made by hand, which nothing repeats" in said
    assert "taken, by hand of main, theirs: 3 models, 0 parameters merged, all of it agrees" in said
    assert experts(three) == 2
    replaced(three, OTHER, data(4))
    assert problems(three) == [(OTHER, f"it is {three.manifest(OTHER).digest}, and by hand {other} was made")]
    name = corrupt(three, "theirs")
    found = json.loads(theta(three, "verify", "--json", code=1).stdout)
    assert any(f"object {name} is corrupt" in item["problem"] for item in found["differences"] if item["path"] == MODEL)
    card = theta(three, "card").stdout
    assert (
        f"\n{OTHER} was made by hand\n" in card
        and f"\n{THIRD} is as commit `{three.git('rev-parse', 'HEAD~2')}`" in card
    )


def test_each_file_in_its_way(three: Repo) -> None:
    three.git("tag", "elsewhere", "theirs")
    (three.path / "recipe.yaml").write_text("base: elsewhere\nstrategy: task_arithmetic\nmissing: ours\n")
    rule = ("--rule", f"{COUNTER} ours")
    resolve(three, MODEL, *rule, "-s", "task_arithmetic", "--missing", "ours")
    resolve(three, OTHER, *rule, "--recipe", "recipe.yaml")
    resolve(three, THIRD, "--theirs")
    text = commit(three)
    assert f" base={three.git('rev-parse', 'elsewhere')}" in text and "Theta-Version: 3" in text
    assert three.manifest(MODEL).digest != three.manifest(OTHER).digest
    said = theta(three, "verify").stderr
    assert f"{THIRD}: taken as it is in theirs" in said
    assert "task_arithmetic, taken of main, theirs: 3 models, 2 parameters merged, all of it agrees" in said
    replaced(three, MODEL, data(2, **EXTRA))
    assert problems(three) == [(MODEL, "it is theirs's version, and not what is recorded")]
    replaced(three, MODEL, data(8))
    assert {path for path, _ in problems(three)} == {MODEL}


def test_only_what_is_staged_as_it_was_is_recorded(three: Repo) -> None:
    resolve(three, "--ours")
    three.write(OTHER, data(6))
    three.git("add", OTHER)
    assert "Theta-File-Taken: other" not in commit(three)
    assert theta(three, "verify", code=1).stdout == f"{OTHER}: how its conflict was resolved is not recorded\n"


def test_added_on_both_sides(repo: Repo) -> None:
    repo.write("README", b"hello\n")
    repo.commit("start")
    branch(repo, "theirs", {MODEL: data(2)})
    repo.write(MODEL, data(1))
    repo.commit("mine")
    assert repo.run("merge", "theirs", check=False).returncode == 1
    resolve(repo, "--theirs")
    assert "Theta-File-Taken: " in commit(repo)
    assert problems(repo) == []


def test_deleted_on_our_side(repo: Repo) -> None:
    """The strategy for many heads leaves a conflict, too."""
    for path in (MODEL, OTHER):
        repo.write(path, data(5))
    repo.commit("seed")
    branch(repo, "changed", {MODEL: data(2)})
    branch(repo, "else", {OTHER: data(3)})
    repo.git("rm", "--quiet", MODEL)
    repo.commit("no model")
    theta(repo, "merge", "changed", "else", code=1)
    resolve(repo, "--theirs")
    assert f"Theta-File-Taken: {MODEL} {repo.git('rev-parse', 'changed')}" in commit(repo)
    assert len(repo.git("log", "-1", "--format=%P").split()) == 3
    assert problems(repo) == []


def test_of_a_rebase_nothing_is_kept(three: Repo) -> None:
    three.git("merge", "--abort")
    assert three.run("rebase", "theirs", check=False).returncode == 1
    resolve(three, "--theirs")
    assert not (three.path / ".git" / "THETA_MERGE").exists()
    three.git("-c", "core.editor=true", "rebase", "--continue")
    assert "Theta-" not in message(three)

"""A merge is made again from what its commit says; whatever is not as it says is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from branches import MODEL, branch, experts, merged, message, pack, seed, theta, trained, trio, trio_template
from conftest import Repo
from safetensors.numpy import save

from git_theta_btm.errors import ThetaError
from git_theta_btm.manifest import Digest, Entry
from git_theta_btm.merging.distances import distance
from git_theta_btm.merging.verifying import Difference, Report, tolerance, verify
from git_theta_btm.repository import Repository
from git_theta_btm.source import BytesSource
from git_theta_btm.tensor import Tensor

__all__ = ["trio", "trio_template"]
TWO = ("legal", "medical")


def both(repo: Repo) -> Repo:
    """The merge of two experts, checked out."""
    repo.git("checkout", "--quiet", "both")
    return repo


def check(repo: Repo, revision: str = "HEAD") -> Report:
    return verify(Repository(str(repo.path)), revision)


def amend(repo: Repo, path: str, data: bytes) -> None:
    """Other weights under the same record."""
    repo.write(path, data)
    repo.git("commit", "--quiet", "--all", "--amend", "--no-edit")


def test_a_merge_agrees(trio: Repo) -> None:
    repo = trio
    theta(repo, "merge", *TWO, "-s", "dare_ties", "-o", "seed=3")
    before = repo.objects()
    report = check(repo)
    assert report.differences == ()
    assert [(model.path, model.parameters, model.computed) for model in report.models] == [(MODEL, 3, 3)]
    assert repo.objects() == before
    assert os.listdir(repo.theta / "tmp") == []


def test_a_parameter_that_is_another_is_named(trio: Repo) -> None:
    repo = both(trio)
    state = {name: value.copy() for name, value in merged(repo).items()}
    state["h.1.w"][0, 0] = np.nextafter(state["h.1.w"][0, 0], np.float32(9))
    amend(repo, MODEL, pack(state))
    (found,) = check(repo).differences
    assert (found.path, found.parameter) == (MODEL, "h.1.w")
    done = theta(repo, "verify", code=1)
    assert done.stdout.startswith(f"{MODEL}: h.1.w: it is F32[90,64] ")
    assert len(done.stdout.splitlines()) == 1


def test_the_bytes_between_parameters_count_too(trio: Repo) -> None:
    repo = both(trio)
    amend(repo, MODEL, save(merged(repo), {"format": "pt", "note": "another header"}))
    assert check(repo).differences == (
        Difference(MODEL, "", "its parameters agree, and the bytes between them do not"),
    )


def test_parameters_that_come_and_go(trio: Repo) -> None:
    repo = both(trio)
    state = merged(repo)
    amend(repo, MODEL, pack({"new": state["h.0.w"], "h.1.w": state["h.1.w"], "h.2.w": state["h.2.w"]}))
    found = [(item.parameter, item.problem) for item in check(repo).differences]
    assert found == [("h.0.w", "it is not in the merge"), ("new", "no expert has it")]


def test_one_wrong_byte_of_an_input_is_found(trio: Repo) -> None:
    repo = both(trio)
    entry = repo.manifest(MODEL, "legal").entries[0]
    manifest = repo.manifest(MODEL, "legal")
    oid = next((item.oid for item in manifest.objects if item.encoded and item.rest[0] == entry.digest), entry.digest)
    path = repo.store.path(oid)
    os.chmod(path, 0o644)
    data = bytearray(Path(path).read_bytes())
    data[-1] ^= 1
    Path(path).write_bytes(data)
    (found,) = check(repo).differences
    assert f"object {oid} is corrupt" in found.problem
    assert f"object {oid} is corrupt" in theta(repo, "verify", code=1).stdout


def test_what_one_expert_alone_changed_has_to_be_its_version(trio: Repo) -> None:
    repo = trio
    repo.git("checkout", "--quiet", "legal")
    repo.write("own.safetensors", pack(trained(8)))
    repo.commit("more")
    repo.git("checkout", "--quiet", "main")
    theta(repo, "merge", *TWO)
    assert check(repo).differences == ()
    amend(repo, "own.safetensors", pack({**trained(8), "h.0.w": trained(9)["h.0.w"]}))
    (found,) = check(repo).differences
    assert (found.path, found.parameter) == ("own.safetensors", "h.0.w")
    repo.write("made up.safetensors", pack(trained(3)))
    repo.git("add", ".")
    repo.git("commit", "--quiet", "--amend", "--no-edit")
    assert Difference("made up.safetensors", "", "none of the experts has it") in check(repo).differences


def test_two_experts_with_the_same_change_are_one(repo: Repo) -> None:
    """git takes such a file as it is, so it is not the sum of two changes."""
    repo.write(MODEL, pack(seed()))
    repo.write("other.safetensors", pack(seed()))
    repo.commit("seed")
    branch(repo, "one", {MODEL: pack(trained(1)), "other.safetensors": pack(trained(5))})
    branch(repo, "two", {MODEL: pack(trained(1)), "other.safetensors": pack(trained(6))})
    theta(repo, "merge", "one", "two", "-s", "task_arithmetic")
    assert repo.manifest(MODEL, "HEAD") == repo.manifest(MODEL, "one")
    assert check(repo).differences == ()


def test_a_base_that_was_named(repo: Repo) -> None:
    repo.write(MODEL, pack(trained(5)))
    repo.commit("another seed")
    repo.git("tag", "origin-of-all")
    experts(repo, *TWO)
    theta(repo, "merge", *TWO, "-s", "ties", "--base", "origin-of-all")
    assert f"Theta-Base: {repo.git('rev-parse', 'origin-of-all')}" in message(repo)
    assert check(repo).differences == ()


def test_statistics_are_recorded(repo: Repo) -> None:
    repo.write(MODEL, pack(seed()))
    repo.write("stats/README", b"who depends on what")
    repo.commit("seed")
    for number, name in enumerate(TWO, 1):
        squares = {key: value * value for key, value in trained(number + 5).items()}
        branch(repo, name, {MODEL: pack(trained(number)), "stats/fisher 1.safetensors": pack(squares)})
    theta(repo, "merge", *TWO, "-s", "fisher", "--statistics", "fisher 1.safetensors", cwd="stats")
    assert "'statistics=stats/fisher 1.safetensors'" in message(repo)
    report = check(repo)
    assert report.differences == ()
    assert [model.computed for model in report.models] == [3, 3]


def test_a_strategy_that_is_not_exact_is_compared_by_a_tolerance(trio: Repo) -> None:
    repo = trio
    theta(repo, "merge", *TWO, "-s", "tsv_m")
    assert check(repo).differences == ()
    state = {name: value.copy() for name, value in merged(repo).items()}
    state["h.0.w"][0, 0] = np.nextafter(state["h.0.w"][0, 0], np.float32(9))
    amend(repo, MODEL, pack(state))
    report = check(repo)
    assert report.differences == ()
    assert report.models[0].tolerated == ("h.0.w",)
    assert "1 parameter only within the tolerance" in theta(repo, "verify").stderr
    state["h.0.w"][0, 0] += 1
    amend(repo, MODEL, pack(state))
    assert [item.parameter for item in check(repo).differences] == ["h.0.w"]


def test_commits_that_cannot_be_verified(trio: Repo) -> None:
    repo = trio
    with pytest.raises(ThetaError, match="records no merge"):
        check(repo)
    assert "there is no commit 'nothing'" in theta(repo, "verify", "nothing", code=128).stderr
    line = f"Theta-Expert: {'1' * 40} 1.0 gone"
    repo.git(
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        f"x\n\nTheta-Merge: average missing=error vocabulary=strict\n{line}\nTheta-Version: 1",
    )
    assert "the expert gone is not here" in theta(repo, "verify", code=128).stderr


def test_missing_objects_are_fetched(trio: Repo, tmp_path: Path) -> None:
    repo = both(trio)
    remote = str(tmp_path / "remote.git")
    repo.git("init", "--quiet", "--bare", remote)
    repo.git("remote", "add", "origin", f"file://{remote}")
    theta(repo, "push", "--all", "origin")
    repo.git("push", "--quiet", "--all", "origin")
    shutil.rmtree(repo.theta / "objects")
    shutil.rmtree(repo.path / ".git" / "lfs", ignore_errors=True)
    assert check(repo).differences == ()


def test_tolerances_follow_the_type() -> None:
    def entry(dtype: str) -> Entry:
        return Entry("x", Tensor.parse(f"{dtype}[4]"), Digest.of(b""))

    assert tolerance(entry("F32")) == 2.0**-22
    assert tolerance(entry("BF16")) == 2.0**-6
    assert tolerance(entry("F64")) == 1e-9


def test_distances() -> None:
    one, other = np.array([3.0, 4.0], "f4"), np.array([3.0, 4.5], "f4")
    tensor = Tensor.parse("F32[2]")
    assert distance(BytesSource(one.tobytes()), BytesSource(other.tobytes()), tensor) == 0.1
    zero = np.zeros(2, "f4")
    assert distance(BytesSource(zero.tobytes()), BytesSource(one.tobytes()), tensor) == 5.0
    nan = np.array([np.nan, 0], "f4")
    assert np.isnan(distance(BytesSource(nan.tobytes()), BytesSource(one.tobytes()), tensor))
    empty = distance(BytesSource(b""), BytesSource(b""), Tensor.parse("F32[0]"))
    assert empty == 0.0


def test_one_of_each_is_in_the_singular(repo: Repo) -> None:
    repo.write(MODEL, save({"w": np.zeros(3, "f4")}))
    repo.commit("seed")
    for number, name in enumerate(TWO, 1):
        branch(repo, name, {MODEL: save({"w": np.full(3, number, "f4")})})
    theta(repo, "merge", *TWO)
    assert "1 model, 1 parameter merged, all of it agrees" in theta(repo, "verify").stderr

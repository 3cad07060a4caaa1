"""Models that git has left unmerged, and the ways out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from branches import MODEL, branch, mean, merged, message, pack, same, seed, theta, trained, trio, trio_template
from conftest import Repo

from git_theta_btm.merging.unmerged import unmerged
from git_theta_btm.repository import Repository

__all__ = ["trio", "trio_template"]

COUNTER = "h.9.steps"


@pytest.fixture
def stuck(repo: Repo) -> Repo:
    """In the middle of a merge that no rule covers: both sides have another count of steps, which is no float."""

    def data(number: int) -> bytes:
        return pack({**trained(number), COUNTER: np.array([number])})

    repo.write(MODEL, data(5))
    repo.write("sub/other.safetensors", pack(seed()))
    repo.commit("seed")
    branch(repo, "theirs", {MODEL: data(2)})
    repo.write(MODEL, data(1))
    repo.commit("mine")
    done = repo.run("merge", "theirs", check=False)
    assert done.returncode == 1
    assert b"git theta resolve" in done.stderr
    return repo


def versions(repo: Repo) -> tuple[str, str, str]:
    return repo.git("ls-files", "-s"), repo.sha(MODEL), repo.git("status", "--porcelain")


def test_what_is_unmerged(stuck: Repo) -> None:
    (item,) = unmerged(Repository(str(stuck.path)))
    assert (item.path, sorted(item.rows), item.mode) == (MODEL, ["1", "2", "3"], "100644")
    assert item.side("theirs") == stuck.manifest(MODEL, "theirs")


@pytest.mark.parametrize(("side", "revision"), [("ours", "main"), ("theirs", "theirs"), ("base", "main~")])
def test_a_side_as_it_is(stuck: Repo, side: str, revision: str) -> None:
    theta(stuck, "resolve", f"--{side}", MODEL)
    assert stuck.manifest(MODEL).digest == stuck.manifest(MODEL, revision).digest
    assert stuck.git("ls-files", "-u") == ""
    assert stuck.git("diff", "--name-only") == ""
    content = stuck.run("cat-file", "--filters", f"{revision}:{MODEL}").stdout
    assert (stuck.path / MODEL).read_bytes() == content


def test_another_strategy_for_what_stood_in_the_way(stuck: Repo) -> None:
    before = versions(stuck)
    assert "h.9.steps is I64 and not the same everywhere" in theta(stuck, "resolve", code=128).stderr
    assert versions(stuck) == before
    theta(stuck, "resolve", "--rule", f"{COUNTER} theirs", "--weights", "main=1,theirs=3")
    found = merged(stuck)
    assert found.pop(COUNTER) == 2
    assert same(found, mean([trained(1), trained(2)], [1.0, 3.0]))
    assert stuck.git("diff", "--name-only") == ""
    stuck.git("commit", "--quiet", "--no-edit")
    assert f"Theta-Rule: {COUNTER} theirs" in message(stuck)
    theta(stuck, "verify")


def test_what_somebody_works_on_is_left_alone(stuck: Repo) -> None:
    mine = stuck.write(MODEL, pack(trained(9)))
    assert "was changed since git left it" in theta(stuck, "resolve", "--theirs", code=128).stderr
    assert stuck.sha(MODEL) == mine
    theta(stuck, "resolve", "--take", MODEL)
    assert stuck.sha(MODEL) == mine
    assert same(merged(stuck), trained(9))
    assert stuck.git("ls-files", "-u") == ""


def test_what_makes_no_sense(stuck: Repo) -> None:
    before = versions(stuck)
    for words, code in (
        (["--ours", "--manual"], 129),
        (["--base", "--ours"], 129),
        (["--ours", "-s", "ties"], 129),
        (["-s", "magic"], 129),
        (["sub/other.safetensors", "--ours"], 128),
        (["--take", "nothing"], 128),
    ):
        assert len(theta(stuck, "resolve", *words, code=code).stderr.splitlines()) == 1
    assert versions(stuck) == before


def test_a_model_that_one_side_has_deleted(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "-b", "without", "main")
    trio.git("rm", "--quiet", MODEL)
    trio.commit("no model")
    assert trio.run("merge", "legal", check=False).returncode == 1
    assert "'git rm' it" in theta(trio, "resolve", "--ours", code=128).stderr
    theta(trio, "resolve", "--theirs")
    assert same(merged(trio), trained(1))
    assert trio.git("ls-files", "-u") == trio.git("diff", "--name-only") == ""


def test_nothing_to_do(trio: Repo) -> None:
    assert theta(trio, "resolve").stderr == "no model has a conflict\n"


def test_a_cherry_pick(trio: Repo) -> None:
    trio.write(MODEL, pack({**trained(7), COUNTER: np.array([7])}))
    trio.commit("mine")
    branch(trio, "other", {MODEL: pack({**trained(8), COUNTER: np.array([8])})})
    trio.git("checkout", "--quiet", "-b", "more", "main")
    trio.write(MODEL, pack({**trained(6), COUNTER: np.array([6])}))
    trio.commit("more")
    assert trio.run("cherry-pick", "other", check=False).returncode == 1
    theta(trio, "resolve", "--rule", f"{COUNTER} theirs")
    for name, value in merged(trio).items():
        if name != COUNTER:
            expected = trained(6)[name].astype("f8") + trained(8)[name].astype("f8") - trained(7)[name].astype("f8")
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    trio.git("-c", "core.editor=true", "cherry-pick", "--continue")
    assert "Theta-" not in message(trio)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_by_hand(stuck: Repo) -> None:
    names = [f"model.{side}.safetensors" for side in ("base", "ours", "theirs")]
    said = theta(stuck, "resolve", "--manual", MODEL).stderr
    assert [line.partition(":")[0] for line in said.splitlines()[:3]] == names
    for name, number in zip(names, (5, 1, 2), strict=True):
        assert same(merged(stuck, name), {**trained(number), COUNTER: np.array([number])})
    assert stuck.git("ls-files", "-u") != ""
    wanted = stuck.write(MODEL, pack(trained(3)))
    stuck.write(names[0], b"my notes")
    said = theta(stuck, "resolve", "--manual", MODEL).stderr
    assert f"{names[0]} was changed: it is left there" in said
    assert stuck.sha(MODEL) == wanted
    assert stuck.git("ls-files", "-u") == ""
    assert sorted(os.listdir(stuck.path)) == sorted([".git", ".gitattributes", MODEL, names[0], "sub"])
    assert not (stuck.path / ".git" / "THETA_RESOLVE").exists()


def test_nothing_is_ever_overwritten(stuck: Repo) -> None:
    mine = stuck.write("model.ours.safetensors", b"mine")
    said = theta(stuck, "resolve", "--manual", code=128).stderr
    assert "model.ours.safetensors is in the way" in said
    assert stuck.sha("model.ours.safetensors") == mine
    assert not (stuck.path / "model.base.safetensors").exists()


def test_a_file_of_another_name(stuck: Repo, tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(pack(trained(4)))
    theta(stuck, "resolve", "--take", str(tmp_path / "result"), MODEL)
    assert same(merged(stuck), trained(4))
    assert stuck.git("diff", "--name-only") == ""


# -- asking ------------------------------------------------------------------------------------------------------------


def test_asking(stuck: Repo) -> None:
    before = versions(stuck)
    assert "nothing was changed" in theta(stuck, "resolve", "-i", stdin="o\nq\n", code=128).stderr
    assert versions(stuck) == before
    answers = "o\n?\nx\na h.[12].w\nc\nt\n"
    said = theta(stuck, "resolve", "-i", stdin=answers).stderr
    assert f"{MODEL}: h.0.w F32[90,64]" in said
    assert "it cannot be merged" not in said
    assert "is I64 and not the same everywhere" in said
    found = merged(stuck)
    average = mean([trained(1), trained(2)])
    assert found[COUNTER] == 2
    assert same({"h.0.w": found["h.0.w"]}, {"h.0.w": trained(1)["h.0.w"]})
    assert all(found[name].tobytes() == average[name].tobytes() for name in ("h.1.w", "h.2.w"))
    stuck.git("commit", "--quiet", "--no-edit")
    theta(stuck, "verify")

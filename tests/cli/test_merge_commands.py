"""The commands around merging, as a user sees them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from branches import (
    MODEL,
    branch,
    experts,
    mean,
    merged,
    message,
    pack,
    same,
    seed,
    theta,
    trained,
    trio,
    trio_template,
)
from conftest import Repo

from git_theta_btm.merges import BUILT_IN

__all__ = ["trio", "trio_template"]


def state(repo: Repo) -> tuple[str, str, str, dict[str, int]]:
    return repo.git("for-each-ref"), repo.sha(MODEL), repo.status(), repo.objects()


# -- a merge that is only shown ----------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(trio: Repo) -> None:
    before = state(trio)
    said = theta(
        trio, "merge", "-n", "legal", "medical", "--weights", "medical=3,legal=1", "--rule", "h.0.* ours"
    ).stdout
    assert f"{MODEL}: 3 parameters: 2 computed by average, 1 taken from legal" in said
    assert f"  Theta-Expert: {trio.git('rev-parse', 'medical')} 3.0 medical" in said
    assert state(trio) == before
    assert not (trio.path / ".git" / "THETA_MERGE").exists()


def test_a_dry_run_as_json(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "legal")
    trio.write("own.safetensors", pack(trained(4)))
    trio.commit("more")
    trio.git("checkout", "--quiet", "main")
    branch(trio, "alike", {MODEL: pack({**trained(2), "h.1.w": trained(1)["h.1.w"]})})
    found = json.loads(theta(trio, "merge", "--dry-run", "--json", "legal", "alike").stdout)
    assert (found["version"], found["clean"], found["conflicts"]) == (1, True, [])
    assert [expert["name"] for expert in found["experts"]] == ["legal", "alike"]
    model, own = found["files"]
    assert [(item["name"], item["how"], item["by"]) for item in model["parameters"]] == [
        ("h.0.w", "computed", "average"),
        ("h.1.w", "equal", "legal"),
        ("h.2.w", "computed", "average"),
    ]
    assert (own["path"], own["taken"]) == ("own.safetensors", "legal")
    assert any(line.startswith("Theta-Merge: average ") for line in found["trailers"])


def test_a_dry_run_shows_conflicts(trio: Repo) -> None:
    branch(trio, "wide", {MODEL: pack(trained(2, 91)), "legal.txt": b"another"})
    said = theta(trio, "merge", "-n", "legal", "wide", code=1).stdout
    assert f"{MODEL}: cannot be merged: h.0.w has the shapes [90, 64] and [91, 64]" in said
    assert "legal.txt: git finds a conflict in it" in said
    assert "no model is changed" in theta(trio, "merge", "-n", "main").stdout


def test_no_common_ancestor(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "--orphan", "alone")
    trio.write(MODEL, pack(trained(9)))
    trio.commit("from nothing")
    trio.git("checkout", "--quiet", "main")
    done = theta(trio, "merge", "alone", code=128)
    assert "share no common ancestor" in done.stderr
    assert "unrelated histories" in done.stderr


# -- strategies --------------------------------------------------------------------------------------------------------


def test_the_list(repo: Repo) -> None:
    said = theta(repo, "merge", "--list").stdout
    assert [line.partition(":")[0] for line in said.splitlines() if not line.startswith(" ")] == list(BUILT_IN)
    assert "    -o density=0.2     the part of each task vector that is kept (0 to 1)" in said
    found = {item["name"]: item for item in json.loads(theta(repo, "merge", "--list", "--json").stdout)["strategies"]}
    assert found["ties"]["options"][0] == {
        "name": "density",
        "default": [0.2],
        "low": 0.0,
        "high": 1.0,
        "choices": [],
        "text": "the part of each task vector that is kept",
    }
    assert found["theirs"]["needs"] == ["2 models"]
    assert (found["average"]["exact"], found["tsv_m"]["exact"]) == (True, False)
    assert all(item["text"].endswith(".") for item in found.values())


def test_one_strategy_at_length(repo: Repo) -> None:
    assert "arXiv:2306.01708" in theta(repo, "merge", "--explain", "ties").stdout
    assert json.loads(theta(repo, "merge", "--explain", "model-stock", "--json").stdout)["name"] == "model_stock"
    assert "there is no merge strategy 'magic'" in theta(repo, "merge", "--explain", "magic", code=129).stderr


@pytest.mark.parametrize(
    "words", [["--abort", "--continue"], ["--list", "--dry-run"], ["legal", "--json"], ["--explain", "ties", "-i"]]
)
def test_what_does_not_go_together(trio: Repo, words: list[str]) -> None:
    theta(trio, "merge", *words, code=129)


def test_abort_without_a_merge(trio: Repo) -> None:
    assert "There is no merge to abort" in theta(trio, "merge", "--abort", code=128).stderr


# -- asking ------------------------------------------------------------------------------------------------------------


def test_answers_become_rules(trio: Repo) -> None:
    answers = "b\no h.[1].*\n\n"
    said = theta(trio, "merge", "-i", "legal", "medical", stdin=answers).stderr
    assert f"{MODEL}: h.0.w F32[90,64]" in said
    assert "  legal: 2.0" in said
    assert "% from the base" in said
    found, average = merged(trio), mean([trained(1), trained(2)])
    assert same(found, {"h.0.w": seed()["h.0.w"], "h.1.w": trained(1)["h.1.w"], "h.2.w": average["h.2.w"]})
    assert "Theta-Rule: h.0.w base\nTheta-Rule: 'h.[1].*' ours\n" in message(trio)
    theta(trio, "verify")


@pytest.mark.parametrize("answers", ["", "q\n", "o\nq\n", "a"])
def test_whoever_quits_changes_nothing(trio: Repo, answers: str) -> None:
    before = state(trio)
    said = theta(trio, "merge", "-i", "legal", "medical", stdin=answers, code=128).stderr
    assert "nothing was changed" in said
    assert state(trio) == before


def test_the_rest_as_it_is_configured(trio: Repo) -> None:
    theta(trio, "merge", "-i", "legal", "medical", stdin="t\nC\n")
    average = mean([trained(1), trained(2)])
    assert same(merged(trio), {**average, "h.0.w": trained(2)["h.0.w"]})


def test_an_answer_has_to_make_sense(repo: Repo) -> None:
    experts(repo)
    for number, name in enumerate(("one", "two", "three"), 1):
        branch(repo, name, {MODEL: pack({"w": trained(number)["h.0.w"], "steps": np.array([number])})})
    said = theta(repo, "merge", "-i", "one", "two", "three", stdin="c\nC\nt\na\nb\no\na *\n").stderr
    for line in (
        "steps is I64 and not the same",
        "it cannot be merged as it is",
        "is the second of two",
        "is not in the base",
    ):
        assert line in said
    assert merged(repo)["steps"] == 1
    assert "Theta-Rule: steps ours\nTheta-Rule: w average\n" in message(repo)
    assert same({"w": merged(repo)["w"]}, {"w": mean([{"w": trained(n)["h.0.w"]} for n in (1, 2, 3)])["w"]})

"""A card says what a merge's commit records, and nothing else."""

from __future__ import annotations

import json

import yaml
from branches import MODEL, branch, pack, theta, trained, trio, trio_template
from conftest import Repo

from git_theta_btm.merging.cards import card, markdown
from git_theta_btm.repository import Repository

__all__ = ["trio", "trio_template"]


def front(text: str) -> dict[str, object]:
    start, head, _ = text.split("---\n", 2)
    assert start == ""
    found: dict[str, object] = yaml.safe_load(head)
    return found


def test_what_a_card_says(trio: Repo) -> None:
    theta(trio, "merge", "legal", "medical", "-s", "ties", "-o", "density=0.3", "--weights", "legal=2,medical=1")
    commit, legal = trio.git("rev-parse", "HEAD", "legal").split()
    made = card(Repository(str(trio.path)), "HEAD")
    assert (made.commit, made.strategy, made.options["density"]) == (commit, "ties", "0.3")
    assert [(item.name, item.weight) for item in made.experts] == [("legal", "2.0"), ("medical", "1.0")]
    (file,) = made.files
    manifest = trio.manifest(MODEL, "HEAD")
    assert (file.digest, file.parameters, file.size) == (manifest.digest, 3 * 90 * 64, manifest.size)
    text = markdown(made)
    assert front(text) == {"tags": ["merge", "git-theta-btm"]}
    for part in (legal, manifest.digest, f"git theta verify {commit}", "| density | 0.3 |", "train legal"):
        assert part in text


def test_names_on_the_hub_are_the_users_to_say(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "both")
    done = theta(trio, "card", "--base-model", "org/seed", "--base-model", "org/legal")
    assert front(done.stdout)["base_model"] == ["org/seed", "org/legal"]
    assert front(done.stdout)["base_model_relation"] == "merge"


def test_merges_of_merges(trio: Repo) -> None:
    theta(trio, "merge", "both", "code")
    made = card(Repository(str(trio.path)), "HEAD")
    assert [(item.name, item.mass) for item in made.experts] == [("both", 2.0), ("code", 1.0)]
    assert [item.name for item in made.experts[0].experts] == ["legal", "medical"]
    text = markdown(made)
    assert "merged by `average` of:\n  - legal (" in text


def test_texts_of_others_stay_texts(repo: Repo) -> None:
    repo.write("a|b<i>.safetensors", pack(trained(0)))
    repo.commit("seed")
    branch(repo, "legal", {"a|b<i>.safetensors": pack(trained(1))})
    branch(repo, "medical", {"a|b<i>.safetensors": pack(trained(2))})
    theta(repo, "merge", "legal", "medical", "-m", "# <script>alert(1)</script> | *")
    text = theta(repo, "card").stdout
    assert "<script>" not in text.replace("\\<", "")
    assert "a\\|b\\<i\\>.safetensors" in text


def test_output(trio: Repo) -> None:
    trio.git("checkout", "--quiet", "both")
    theta(trio, "card", "-o", "CARD.md")
    assert (trio.path / "CARD.md").read_text() == theta(trio, "card").stdout
    assert "is there already" in theta(trio, "card", "-o", "CARD.md", code=128).stderr
    found = json.loads(theta(trio, "card", "--json").stdout)
    assert found["version"] == 1
    assert [item["name"] for item in found["experts"]] == ["legal", "medical"]
    assert "records no merge" in theta(trio, "card", "HEAD^", code=128).stderr

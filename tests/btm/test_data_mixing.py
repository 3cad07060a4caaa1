"""A domain with general text: exact counts, the same bytes from the same seed, and nothing of the domain itself."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from conftest import Repo

from git_theta_btm.btm.data import adding
from git_theta_btm.btm.data.mixing import General, mix
from git_theta_btm.btm.data.reading import Document
from git_theta_btm.btm.data.splitting import parse
from git_theta_btm.btm.places import text
from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.repository import Repository

Rows = Callable[[str], list[str]]


@pytest.fixture
def pile(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.chdir(repo.path)
    repository = Repository()
    for domain, count in (("legal", 60), ("code", 150), ("medical", 150)):
        texts = [Document(f"{domain} {number}") for number in range(count)] + [Document("shared by all")]
        adding.add(repository, texts, domain, parse("60,20,20"))
    return repository


def rows(repository: Repository, part: str, domain: str = "legal") -> list[str]:
    with open(repository.absolute(text(domain, part)), encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def test_as_many_general_documents_as_of_the_domain(pile: Repository) -> None:
    before = [rows(pile, part) for part in ("train", "valid", "test")]
    counts = mix(pile, "legal", General(exclude=True))
    assert [rows(pile, part) for part in ("train", "valid", "test")] == before
    train, valid, test = before
    mixed = rows(pile, "train_mix")
    assert counts == {"train_mix": 2 * len(train), "valid_general": len(valid), "test_general": len(test)}
    assert len(mixed) == 2 * len(train)
    assert sorted(set(mixed) & set(train)) == sorted(train)
    general = [*(set(mixed) - set(train)), *rows(pile, "valid_general"), *rows(pile, "test_general")]
    assert len(general) == len(set(general)) == len(train) + len(valid) + len(test)
    assert not set(general) & {*train, *valid, *test}  # not even the text that all domains share
    assert {row.split()[0] for row in general} == {"code", "medical"}


def test_it_is_in_a_random_order(pile: Repository) -> None:
    mix(pile, "legal", General(exclude=True))
    kinds = [row.startswith("legal") for row in rows(pile, "train_mix")]
    changes = sum(one != other for one, other in zip(kinds, kinds[1:], strict=False))
    assert changes > len(kinds) / 4  # half of them, if it is random


def test_a_seed_gives_the_same_bytes(pile: Repository) -> None:
    found = []
    for seed in (0, 0, 1):
        mix(pile, "legal", General(seed=seed))
        with open(pile.absolute(text("legal", "train_mix")), "rb") as file:
            found.append(file.read())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("ratio", "of"), [(0.0, ()), (0.5, ("code",)), (1.0, ("code", "medical")), (1.5, ())])
def test_ratios(pile: Repository, ratio: float, of: tuple[str, ...]) -> None:
    counts = mix(pile, "legal", General(ratio, of))
    size = len(rows(pile, "train"))
    assert counts["train_mix"] == size + round(ratio * size)
    if of:
        assert {row.split()[0] for row in rows(pile, "train_mix")} - {"shared"} == {"legal", *of}


def test_without_excluding_the_domain_is_general_too(pile: Repository) -> None:
    mix(pile, "legal", General(3.0))
    mixed = rows(pile, "train_mix")
    assert any(mixed.count(row) > 1 for row in mixed if row.startswith("legal"))


def test_too_little_text_is_an_error_and_nothing_is_written(pile: Repository) -> None:
    with pytest.raises(ThetaError, match=r"general documents in train, and \d+ are needed: .*--general-ratio"):
        mix(pile, "code", General(exclude=True, of=("legal",)))
    with pytest.raises(OSError, match="train_mix"):
        rows(pile, "train_mix", "code")
    with pytest.raises(ThetaError, match="there is no data/poetry/train.jsonl"):
        mix(pile, "poetry", General())
    with pytest.raises(UsageError):
        mix(pile, "legal", General(-1))


def test_the_command_line(repo: Repo, pile: Repository) -> None:
    repo.git("btm", "init")
    repo.commit("text")
    answer = json.loads(repo.git("btm", "data", "mix", "legal", "--exclude-domain", "--json"))
    assert answer["documents"]["train_mix"] == len(rows(pile, "train_mix"))
    assert repo.git("log", "-1", "--format=%s") == "btm: mix of legal"
    assert repo.status() == ""

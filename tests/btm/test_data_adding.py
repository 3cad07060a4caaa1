"""Adding text: every document in one split, once, where its own text puts it; commits of these files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Repo
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.btm import settings
from git_theta_btm.btm.cli import btm
from git_theta_btm.btm.data import adding, committing, holdings
from git_theta_btm.btm.data.reading import Document
from git_theta_btm.btm.data.splitting import identity, parse, split
from git_theta_btm.btm.places import SPLITS, text
from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.repository import Repository

PARTS = parse("90,5,5")
TEXTS = [f"document {number}" for number in range(400)]


@pytest.fixture
def forest(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository as ``git btm init`` leaves it, in which the test stands."""
    monkeypatch.chdir(repo.path)
    repo.git("btm", "init")
    repo.commit("Branch-Train-Merge")
    return repo


def held(repo: Repo, domain: str) -> dict[str, list[str]]:
    found = {}
    for part in SPLITS:
        path = repo.path / text(domain, part)
        lines = path.read_text().splitlines() if path.exists() else []
        found[part] = [json.loads(line)["text"] for line in lines]
    return found


def add(repo: Repo, texts: Iterable[str], parts: dict[str, float] = PARTS) -> adding.Added:
    return adding.add(Repository(str(repo.path)), map(Document, texts), "legal", parts)


def test_every_document_is_in_one_split(forest: Repo) -> None:
    added = add(forest, TEXTS)
    found = held(forest, "legal")
    assert sorted(found["train"] + found["valid"] + found["test"]) == sorted(TEXTS)
    assert {part: len(rows) for part, rows in found.items()} == {part: added.counts["legal", part] for part in SPLITS}
    assert len(found["train"]) == pytest.approx(360, abs=20)
    assert len(found["valid"]) == pytest.approx(20, abs=13)


def test_order_has_no_say(forest: Repo) -> None:
    add(forest, TEXTS)
    before = held(forest, "legal")
    for part in SPLITS:
        (forest.path / text("legal", part)).unlink()
    add(forest, reversed(TEXTS[200:]))
    add(forest, TEXTS[:200])
    assert {part: sorted(rows) for part, rows in held(forest, "legal").items()} == {
        part: sorted(rows) for part, rows in before.items()
    }


def test_adding_again_adds_nothing(forest: Repo) -> None:
    add(forest, TEXTS)
    before = [(forest.path / text("legal", part)).read_bytes() for part in SPLITS]
    again = add(forest, [*TEXTS, "new", "new"])
    assert (sum(again.counts.values()), again.duplicates) == (1, 401)
    assert add(forest, TEXTS, {"test": 1.0}).duplicates == 400  # none comes into a second split
    after = [(forest.path / text("legal", part)).read_bytes() for part in SPLITS]
    assert all(new.startswith(old) for new, old in zip(after, before, strict=True))


def test_a_failure_changes_nothing(forest: Repo) -> None:
    add(forest, TEXTS)
    before = held(forest, "legal")

    def broken() -> Iterable[str]:
        yield from ("x", "y", "z")
        raise ThetaError("a.jsonl:4: it is not JSON")

    with pytest.raises(ThetaError, match="a.jsonl:4"):
        add(forest, broken())
    assert held(forest, "legal") == before
    assert not list((forest.path / ".git/btm/spool").iterdir())


def test_a_file_without_its_last_newline_grows_well(forest: Repo) -> None:
    path = forest.path / text("legal", "train")
    path.parent.mkdir(parents=True)
    path.write_text('{"text": "by hand"}')
    add(forest, ["new"], {"train": 1.0})
    assert held(forest, "legal")["train"] == ["by hand", "new"]


def test_what_is_in_the_store_alone_grows_too(forest: Repo) -> None:
    before_rows = add(forest, TEXTS).counts["legal", "train"]
    forest.commit("text")
    forest.git("theta", "dematerialize")
    before = forest.git("cat-file", "-p", f":{text('legal', 'train')}")
    assert (forest.path / text("legal", "train")).read_text().rstrip("\n") == before.rstrip("\n")  # a stub
    added = add(forest, [*TEXTS, "new"], {"train": 1.0})
    assert added.duplicates == 400
    rows = (forest.path / text("legal", "train")).read_text().splitlines()
    assert len(rows) == before_rows + 1
    assert json.loads(rows[-1]) == {"text": "new"}


def test_domains_by_a_field(forest: Repo) -> None:
    rows = [("a", "Stack Exchange"), ("b", "StackExchange"), ("c", "Free Law"), ("d", "C#")]
    found = [Document(content, domain) for content, domain in rows]
    repository = Repository()
    added = adding.add(repository, found, None, {"train": 1.0})
    assert dict(added.counts) == {("StackExchange", "train"): 2, ("FreeLaw", "train"): 1, ("C-sharp", "train"): 1}
    one = adding.add(repository, found, "FREELAW", {"train": 1.0})
    assert (dict(one.counts), one.other) == ({("FREELAW", "train"): 1}, 3)
    with pytest.raises(ThetaError, match="--domain-field"):
        adding.add(repository, [Document("x")], None, PARTS)


def test_splitting_anew(forest: Repo) -> None:
    add(forest, TEXTS, {"train": 1.0})
    added = adding.resplit(Repository(), "legal", parse("50,25,25"))
    found = held(forest, "legal")
    assert sorted(found["train"] + found["valid"] + found["test"]) == sorted(TEXTS)
    assert all(split(identity(row), parse("50,25,25")) == part for part, rows in found.items() for row in rows)
    assert added.counts["legal", "valid"] == len(found["valid"]) > 50
    with pytest.raises(ThetaError, match="no text of 'medical'"):
        adding.resplit(Repository(), "medical", PARTS)


def test_a_commit_has_these_files_alone(forest: Repo) -> None:
    (forest.path / "other.txt").write_text("staged by somebody")
    forest.git("add", "other.txt")
    add(forest, TEXTS)
    committing.enlist(Repository(), ["legal"])
    change = committing.Change([text("legal", part) for part in SPLITS])
    assert committing.keep(Repository(), change, "btm: data of legal", commit=True)
    names = forest.git("show", "--name-only", "--format=%s", "HEAD").split()
    assert names == ["btm:", "data", "of", "legal", "btm.toml", *sorted(map(str, change.paths))]
    assert forest.status() == "A  other.txt"
    assert not committing.keep(Repository(), change, "again", commit=True)


def test_without_filters_nothing_is_added(repo: Repo) -> None:
    repo.git("theta", "uninstall", "--local")
    with pytest.raises(ThetaError, match="git theta install"):
        add(repo, TEXTS)


def test_the_command_line(forest: Repo, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": row}) + "\n" for row in TEXTS) + "{\n")
    failed = forest.run("btm", "data", "add", "legal", str(source), check=False)
    assert failed.returncode == 128
    assert b"in.jsonl:401: it is not JSON" in failed.stderr
    answer = json.loads(forest.git("btm", "data", "add", "legal", str(source), "--skip-bad", "--json"))
    assert sum(answer["added"]["legal"].values()) == 400
    assert (answer["bad"], answer["duplicates"]) == (1, 0)
    assert forest.git("log", "-1", "--format=%s") == "btm: data of legal"
    assert forest.git("cat-file", "-p", f"HEAD:{text('legal', 'train')}").startswith("git-theta-btm manifest")
    assert settings.load(str(forest.path)).domains == ("legal",)
    assert forest.git("btm", "data", "add", "legal", str(source), "--skip-bad") == "nothing new"
    forest.git("btm", "domains", "preset", "btm8")
    assert forest.git("btm", "domains", "ls").split("\n")[0].split() == ["legal", "train,", "valid,", "test"]
    forest.git("btm", "data", "rm", "legal")
    assert not (forest.path / "data").exists()
    assert forest.status() == ""
    assert settings.load(str(forest.path)).domains[0] == "1b"  # those of the list are left, but for legal
    assert "legal" not in settings.load(str(forest.path)).domains
    assert forest.run("btm", "data", "rm", "..", check=False).returncode == 129


@pytest.mark.parametrize("word", ["../x", "corpus.jsonl", "./legal", "a/b"])
def test_a_path_is_no_domain(forest: Repo, word: str) -> None:
    """As it is where the domain was left out: two files, of which the first would be called the second's domain."""
    for name in ("corpus.jsonl", "more.jsonl"):
        (forest.path / name).write_text('{"text": "a"}\n')
    before = forest.git("rev-parse", "HEAD")
    for words in (["data", "add", word, "more.jsonl"], ["data", "rm", word], ["data", "split", word]):
        with pytest.raises(UsageError, match="is a path, and no name of a domain"):
            CliRunner().invoke(btm, words, catch_exceptions=False)
    assert forest.git("rev-parse", "HEAD") == before
    assert settings.load(str(forest.path)).domains == ()


def test_a_domain_may_be_called_as_its_folder(forest: Repo) -> None:
    for folder in ("legal", "v1.0"):
        (forest.path / folder).mkdir()
        (forest.path / folder / "a.txt").write_text("a text")
        assert CliRunner().invoke(btm, ["data", "add", folder, folder]).exit_code == 0
    assert settings.load(str(forest.path)).domains == ("legal", "v1.0")


def test_holdings(forest: Repo) -> None:
    add(forest, TEXTS)
    forest.commit("text")
    (forest.path / text("legal", "test")).unlink()
    repository = Repository()
    now = list(holdings.counted(repository, settings.Text()))
    then = list(holdings.counted(repository, settings.Text(), "HEAD"))
    assert [(item.domain, item.split) for item in then] == [("legal", part) for part in SPLITS]
    assert now == then[:2]
    assert sum(item.documents or 0 for item in then) == 400
    assert sum(item.tokens or 0 for item in then) == sum(len(row) + 1 for row in TEXTS)
    assert then[0].digest == forest.sha(text("legal", "train"))
    assert [(item.split, item.bytes) for item in holdings.sizes(repository)] == [(i.split, i.bytes) for i in now]


@pytest.mark.parametrize("parts", ["", "90", "90,10", "a,b,c", "0,0,0", "-1,1,1", "nan,1,1", "inf,1,1"])
def test_what_are_no_splits(parts: str) -> None:
    with pytest.raises(UsageError):
        parse(parts)


@given(st.binary(min_size=16, max_size=16), st.tuples(*[st.integers(0, 9)] * 3).filter(any))
def test_a_split_of_no_part_gets_nothing(digest: bytes, sizes: tuple[int, ...]) -> None:
    parts = dict(zip(SPLITS, map(float, sizes), strict=True))
    assert parts[split(digest, parts)] > 0

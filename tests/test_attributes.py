from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import Repo
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.errors import UsageError
from git_theta_btm.repository import Repository
from git_theta_btm.setup import attributes
from git_theta_btm.setup.attributes import Tracked, add, literal, patterns_in, remove, spell

LINE = b"*.pt filter=theta merge=theta -text"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", LINE + b"\n"),
        (b"# models\n", b"# models\n" + LINE + b"\n"),
        (b"*.txt text\r\n", b"*.txt text\r\n" + LINE + b"\r\n"),
        (b"*.txt text", b"*.txt text\n" + LINE),
        (b"*.txt text\r\n*.md text", b"*.txt text\r\n*.md text\r\n" + LINE),
        (b"#" + LINE + b"\n", b"#" + LINE + b"\n" + LINE + b"\n"),
        (b"*.pt filter=lfs diff=lfs merge=lfs -text\n", b"*.pt filter=lfs diff=lfs merge=lfs -text\n" + LINE + b"\n"),
        (b"*.pt filter=theta\n", b"*.pt filter=theta\n" + LINE + b"\n"),
    ],
)
def test_a_line_is_added_and_nothing_else_changes(before: bytes, after: bytes) -> None:
    assert add(before, ["*.pt"]) == after
    assert add(after, ["*.pt"]) == after
    assert remove(after, ["*.pt"]) == before.replace(b"*.pt filter=theta\n", b"")


def test_a_later_line_for_the_same_pattern_decides() -> None:
    content = LINE + b"\n*.pt filter=lfs\n"
    assert add(content, ["*.pt"]) == content + LINE + b"\n"


def test_more_attributes_and_other_blanks_do_not_hide_a_line() -> None:
    content = b"\t*.pt   -text\tfilter=theta merge=theta  lockable\n"
    assert add(content, ["*.pt"]) == content
    assert patterns_in(content) == ["*.pt"]
    assert remove(content, ["*.pt"]) == b""


def test_macros_and_comments_are_no_patterns() -> None:
    assert patterns_in(b"[attr]model filter=theta\n# *.pt filter=theta\n\n*.pt model\n") == []


existing = st.lists(st.sampled_from([b"# a comment", b"", b"*.txt text", b'"a b" -text', b"  *.md  eol=lf "])).flatmap(
    lambda lines: st.sampled_from([b"\n", b"\r\n"]).flatmap(
        lambda end: st.sampled_from([b"", end]).map(lambda last: end.join(lines) + (last if lines else b""))
    )
)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@given(existing, st.lists(words, min_size=1, max_size=3, unique=True))
def test_removing_is_the_inverse_of_adding(before: bytes, patterns: list[str]) -> None:
    after = add(before, patterns)
    assert remove(after, patterns) == before
    assert add(after, patterns) == after


NAMES = [
    "plain.pt",
    "two words.pt",
    "größe.pt",
    '"quoted".pt',
    'in"side.pt',
    "#number.pt",
    "!bang.pt",
    "tab\there.pt",
    "line\nbreak.pt",
    "star*.pt",
    "a[1].pt",
    "back\\slash.pt",
    "what?.pt",
    "esc\x1b.pt",
    os.fsdecode(b"\xff.pt"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_git_reads_a_literal_name_as_that_name_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / ".gitattributes").write_bytes(add(b"", [literal(name)]))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    asked = [name, "star-other.pt", "a1.pt", "whatX.pt"]
    listed = subprocess.run(
        ["git", "check-attr", "-z", "filter", "--", *asked], cwd=tmp_path, capture_output=True, check=True
    )
    fields = os.fsdecode(listed.stdout).split("\0")
    assert dict(zip(fields[::3], fields[2::3], strict=False)) == {
        other: "theta" if other == name else "unspecified" for other in asked
    }
    assert remove(add(b"", [literal(name)]), [literal(name)]) == b""


def test_spelling() -> None:
    assert spell("my model.pt") == "my[[:space:]]model.pt"
    assert spell("#1.pt") == "\\#1.pt"
    assert spell("**/größe.pt") == "**/größe.pt"


# -- in a worktree ---------------------------------------------------------------------------------------------------


@pytest.fixture
def here(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.chdir(repo.path)
    return repo


@pytest.mark.parametrize("pattern", ["*", ".*", ".git*", "**", "/.gitignore", ".gitmodules"])
def test_gits_own_files_are_refused(here: Repo, pattern: str) -> None:
    before = (here.path / ".gitattributes").read_bytes()
    with pytest.raises(UsageError, match="would match"):
        attributes.track(Repository(), ["*.model", pattern])
    assert (here.path / ".gitattributes").read_bytes() == before


@pytest.mark.parametrize("pattern", ["", "../x.pt", "models/", "models", "a/../b.pt"])
def test_patterns_that_never_match_are_refused(here: Repo, pattern: str) -> None:
    (here.path / "models").mkdir()
    with pytest.raises(UsageError):
        attributes.track(Repository(), [pattern])


def test_the_file_of_the_directory_is_made_and_removed(here: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = here.path / "sub dir"
    directory.mkdir()
    monkeypatch.chdir(directory)
    repository = Repository()
    assert attributes.track(repository, ["./*.model"])
    assert not attributes.track(repository, ["*.model"])
    assert Tracked("*.model", "sub dir/.gitattributes") in list(attributes.tracked(repository))
    assert here.git("check-attr", "filter", "sub dir/x.model", "x.model").split("\n") == [
        "sub dir/x.model: filter: theta",
        "x.model: filter: unspecified",
    ]
    assert attributes.untrack(repository, ["*.model"])
    assert not attributes.untrack(repository, ["*.model"])
    assert os.listdir(directory) == []


def test_the_mode_of_the_file_stays(here: Repo) -> None:
    file = here.path / ".gitattributes"
    file.chmod(0o640)
    attributes.track(Repository(), ["*.model"])
    assert file.stat().st_mode & 0o777 == 0o640


def test_files_that_are_committed_as_they_are_get_another_time(here: Repo) -> None:
    here.write("a.model", b"weights")
    here.write("b.model", b"")
    here.commit()
    os.utime(here.path / "a.model", (1, 1))
    attributes.track(Repository(), ["*.model"])
    assert attributes.touch_plain(Repository()) == ["a.model"]
    assert (here.path / "a.model").stat().st_mtime > 1

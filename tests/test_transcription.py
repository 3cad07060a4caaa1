from __future__ import annotations

from collections.abc import Iterator

import pytest

from git_theta_btm.migration.transcription import LFS, PLAIN, THETA, Goal, Probe, from_lfs, probing, to_lfs
from git_theta_btm.setup.attributes import ATTRIBUTES

LINE = b" filter=lfs diff=lfs merge=lfs -text"
OURS = b" filter=theta merge=theta -text"


@pytest.fixture
def probe() -> Iterator[Probe]:
    with probing() as one:
        yield one


def test_one_line_is_spelt_as_track_spells_it() -> None:
    assert tuple(THETA.words.split()) == ATTRIBUTES


def test_lines_of_the_patterns_change_and_no_others() -> None:
    before = b"# *.pt" + LINE + b"\n*.zip" + LINE + b"\n*.pt" + LINE + b" lockable\r\n*.h5 text"
    after = from_lfs(before, ["*.pt", "*.h5"])
    assert after == before.replace(b"\n*.pt" + LINE, b"\n*.pt" + OURS)
    assert to_lfs(after) == before
    assert from_lfs(before, []) == before


@pytest.mark.parametrize("pattern", [b"*.pt", b'"a b.pt"', b"a[[:space:]]b.pt", b"/x\\[1\\].pt", b'"\\303\\274.pt"'])
def test_any_spelling_of_a_pattern(pattern: bytes) -> None:
    names = ["*.pt", "a b.pt", "/x\\[1\\].pt", "ü.pt"]
    line = pattern + LINE + b"\n"
    assert from_lfs(line, names) == pattern + OURS + b"\n"
    assert to_lfs(pattern + OURS + b"\n") == line


def test_a_word_within_another_is_none() -> None:
    line = b"*.pt xfilter=lfs filter=lfsx diff=lfsx\n"
    assert from_lfs(line, ["*.pt"]) == line


def test_settled_files_stay(probe: Probe) -> None:
    assert probe.settle(b"*.pt filter=theta\n", "", ["a.pt", "b/c.pt"], THETA) == b"*.pt filter=theta\n"
    assert probe.settle(b"", "sub/", ["a.pt"], THETA) == b""
    assert probe.settle(b"*.txt text\n", "sub/", ["a.pt"], THETA) == b"*.txt text\n"
    assert probe.settle(b"*.txt text\n", "", ["a.pt"], PLAIN) == b"*.txt text\n"


@pytest.mark.parametrize("goal", [THETA, LFS, PLAIN])
def test_what_is_contested_gets_a_line_of_its_own(probe: Probe, goal: Goal) -> None:
    content = b"*.pt filter=other\n" if goal is not PLAIN else b"*.pt filter=lfs"
    after = probe.settle(content, "sub/", ["a [1].pt", "x.bin"], goal)
    assert after.startswith(content)
    assert after.endswith(b"\n") == content.endswith(b"\n")
    assert after.strip().splitlines()[1:] == [b"/a[[:space:]]\\[1].pt " + goal.words.encode()]
    assert probe.settle(after, "sub/", ["a [1].pt", "x.bin"], goal) == after


def test_matching_is_that_of_git(probe: Probe) -> None:
    paths = ["a.pt", "x/b.pt", "x/y/c.pt", "x/y/d.bin"]
    assert probe.matching(["*.pt", "/*.pt", "x/**", "none"], paths) == {
        "*.pt": frozenset(paths[:3]),
        "/*.pt": frozenset(paths[:1]),
        "x/**": frozenset(paths[1:]),
        "none": frozenset(),
    }

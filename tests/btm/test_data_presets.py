"""Known lists of domains: complete, without doubles, and names that git takes for branches on any file system."""

from __future__ import annotations

import pytest

from git_theta_btm.btm.data.presets import PRESETS, branch, preset, subset
from git_theta_btm.errors import UsageError
from git_theta_btm.git import Git


@pytest.mark.parametrize(("name", "count"), [("btm8", 8), ("btm8-eval", 8), ("btm64", 64), ("pile22", 22)])
def test_lists_have_unique_names(name: str, count: int) -> None:
    found = preset(name)
    assert len(found) == count
    assert len({domain.lower() for domain in found}) == count  # also where case does not count


@pytest.mark.parametrize("name", PRESETS)
def test_names_are_branches(name: str) -> None:
    for domain in preset(name):
        Git().run("check-ref-format", "--branch", domain)
        assert branch(domain) == domain
        assert subset(domain) == domain or name != "pile22"


@pytest.mark.parametrize(
    ("spelling", "domain"),
    [
        ("Stack Exchange", "StackExchange"),
        ("StackExchange", "StackExchange"),
        ("GitHub", "Github"),
        ("Gutenberg (PG-19)", "Gutenberg"),
        ("Gutenberg", "Gutenberg"),
        ("Wikipedia (en)", "Wikipedia"),
        ("PubMed Central", "PubMed-Central"),
        ("my own texts", "my-own-texts"),
        ("C++", "C-plus-plus"),
    ],
)
def test_spellings_of_a_subset(spelling: str, domain: str) -> None:
    assert subset(spelling) == domain


@pytest.mark.parametrize(
    ("name", "expected"), [("C#", "C-sharp"), ("C", "C"), ("a..b", "a.b"), ("x.lock", "x"), ("-x", "x"), ("a/b", "a-b")]
)
def test_branches(name: str, expected: str) -> None:
    assert branch(name) == expected


@pytest.mark.parametrize("name", ["", "..", "-", "HEAD", "***"])
def test_what_is_no_branch(name: str) -> None:
    with pytest.raises(UsageError):
        branch(name)


def test_an_unknown_list() -> None:
    with pytest.raises(UsageError, match="btm64"):
        preset("btm65")

"""The words that git calls the strategy with."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta_btm.merging.strategy import USAGE, Call, main, parse


def test_a_merge() -> None:
    found = parse(["--strategy=ties", "--weights=a=1,b=2", "--flag", "base1", "base2", "--", "HEAD", "x", "y"])
    options = (("strategy", "ties"), ("weights", "a=1,b=2"), ("flag", "true"))
    assert found == Call(options, ("base1", "base2"), "HEAD", ("x", "y"))
    assert not found.picks


def test_a_pick() -> None:
    found = parse(["parent", "--", "0" * 40, "1" * 40])
    assert found is not None
    assert found.picks


def test_unrelated_histories() -> None:
    assert parse(["--", "HEAD", "x"]) == Call((), (), "HEAD", ("x",))


@pytest.mark.parametrize("words", [[], ["--"], ["a", "--", "HEAD"], ["HEAD", "x"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(words) is None
    assert main(words) == 129
    assert capsys.readouterr() == ("", USAGE + "\n")


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--", "HEAD", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

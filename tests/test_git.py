from __future__ import annotations

import os
from pathlib import Path

import pytest

from git_theta_btm.errors import ThetaError
from git_theta_btm.git import Git, quote

NAMES = [b'a"b', b"tab\there", b"line\nbreak", b"back\\slash", "größe".encode(), b"\xff\xfe", b"bell\a", b"esc\x1b[31m"]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    git = Git(str(tmp_path))
    git.run("init", "--quiet")
    return git


def store(git: Git, data: bytes) -> str:
    return git.run("hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()


def test_a_failure_is_one_line_in_the_words_of_git(tmp_path: Path) -> None:
    with pytest.raises(ThetaError) as failure:
        Git(str(tmp_path)).run("rev-parse", "HEAD")
    assert str(failure.value) == "not a git repository (or any of the parent directories): .git"


def test_the_list_of_options_is_left_out(git: Git) -> None:
    with pytest.raises(ThetaError) as failure:
        git.run("config", "--no-such-option")
    assert "no-such-option" in str(failure.value)
    assert "usage" not in str(failure.value)


def test_without_git(git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ThetaError, match="not installed"):
        git.run("version")


def test_a_directory_that_is_none_is_told_from_no_git(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("gone", "file"):
        with pytest.raises(ThetaError, match=f"there is no directory .*{name}"):
            Git(str(tmp_path / name)).run("version")


@pytest.mark.parametrize("name", ["HEAD", "-d", "a..b", "a.lock", "", "@{-1}", "a b"])
def test_names_that_no_branch_can_have(git: Git, name: str) -> None:
    assert not git.may_name_branch(name)
    assert git.may_name_branch("a/b") and git.may_name_branch("HEAD2") and git.may_name_branch("größe")


def test_fields(git: Git) -> None:
    assert git.fields("ls-files", "-z") == []
    for name in ("a", "b c"):
        Path(git.directory, name).touch()
    git.run("add", ".")
    assert git.fields("ls-files", "-z") == ["a", "b c"]


def test_version(git: Git) -> None:
    assert (2, 20) < git.version() < (9,)


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_are_quoted_as_git_does(git: Git, name: bytes) -> None:
    Path(git.directory, os.fsdecode(name)).touch()
    git.run("add", ".")
    assert git.text("ls-files") == quote(os.fsdecode(name))


def test_blobs_of_all_sizes_through_one_child(git: Git) -> None:
    contents = [b"", b"x", b"line\n", b"binary\0\n" * 10_000]
    oids = [store(git, content) for content in contents]
    with git.blobs() as blobs:
        assert [blobs.read(oid) for oid in [*oids, *reversed(oids)]] == [*contents, *reversed(contents)]


def test_a_blob_that_begins_otherwise_or_is_missing(git: Git) -> None:
    oid = store(git, b"some text")
    with git.blobs() as blobs:
        assert blobs.read(oid, start=b"other") is None
        assert blobs.read("0" * 40) is None
        assert blobs.read(oid, start=b"some text and more") is None
        assert blobs.read(oid, start=b"some") == b"some text"


def test_a_long_blob_is_not_read_to_its_end(git: Git) -> None:
    large, small = store(git, b"\x00" * (64 << 20)), store(git, b"small")
    with git.blobs() as blobs:
        assert blobs.read(large, start=b"x") is None
        assert blobs.read(small) == b"small"
        assert blobs.read(large, limit=5) == bytes(5)
        assert blobs.read(small) == b"small"


def test_reading_where_there_is_no_repository(tmp_path: Path) -> None:
    with Git(str(tmp_path)).blobs() as blobs, pytest.raises(ThetaError, match="git fsck"):
        blobs.read("HEAD")
        blobs.read("HEAD")


@pytest.mark.parametrize(
    ("value", "waits"),
    [("", False), ("committed,-loose-object", False), ("committed", True), ("all", True), ("none", False),
     ("objects,none", False), ("pack", False), ("loose-object", True), ("reference", False), ("added,-objects", False)],
)  # fmt: skip
def test_whether_git_waits_for_the_disk(git: Git, value: str, waits: bool) -> None:  # noqa: FBT001
    if value:
        git.run("config", "core.fsync", value)
    assert git.waits_for_disk() == waits


def test_the_older_way_to_tell_git_to_wait(git: Git) -> None:
    git.run("config", "core.fsyncObjectFiles", "true")
    assert git.waits_for_disk()

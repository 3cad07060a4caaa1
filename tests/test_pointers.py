from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import Repo

from git_theta_btm.errors import ThetaError
from git_theta_btm.manifest import Blob, Digest
from git_theta_btm.remotes.lfs import pointer
from git_theta_btm.remotes.pointers import LIMIT, Storage, parse
from git_theta_btm.repository import Repository
from git_theta_btm.source import write_all

BLOB = Blob(Digest("ab" * 32), 12345)
TEXT = pointer(BLOB)


def test_a_pointer() -> None:
    assert parse(TEXT) == BLOB
    assert parse(TEXT.replace(b"\n", b"\r\n")) == BLOB
    assert parse(TEXT.replace(b"https://git-lfs.github.com/spec/v1", b"https://hawser.github.com/spec/v1")) == BLOB


@pytest.mark.parametrize(
    "text",
    [
        b"",
        TEXT[:-8],
        b"x" + TEXT,
        TEXT + b"more\n",
        TEXT.replace(b"ab", b"zz"),
        TEXT.replace(b"12345", b"-1"),
        TEXT.replace(b"12345", b"9" * 30),
        TEXT.replace(b"\noid", b"\next-0-case sha256:" + b"0" * 64 + b"\noid"),
        TEXT + b" " * LIMIT,
        b"\xff" * 200,
    ],
)
def test_what_is_none(text: bytes) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("where", ["", "elsewhere"])
def test_stored_and_opened(repo: Repo, tmp_path: Path, where: str) -> None:
    if where:
        repo.git("config", "lfs.storage", str(tmp_path / where))
    storage = Storage(Repository(str(repo.path)))
    for _ in range(2):
        blob = storage.store(lambda fd: write_all(fd, b"some bytes") and None)
        assert blob == Blob(Digest(sha256(b"some bytes").hexdigest()), 10)
    with open(storage.open(blob), "rb") as file:
        assert file.read() == b"some bytes"
    root = tmp_path / where if where else repo.path / ".git" / "lfs"
    assert [path.name for path in root.rglob("*") if path.is_file()] == [blob.digest]


def test_failing_to_write_leaves_nothing(repo: Repo) -> None:
    storage = Storage(Repository(str(repo.path)))
    with pytest.raises(OSError):
        storage.store(lambda fd: os.close(os.open(str(fd), os.O_RDONLY)))
    assert [path for path in (repo.path / ".git" / "lfs").rglob("*") if path.is_file()] == []


def test_another_size_than_the_pointer_says(repo: Repo) -> None:
    storage = Storage(Repository(str(repo.path)))
    blob = storage.store(lambda fd: None)
    with pytest.raises(ThetaError, match="corrupt"):
        storage.open(Blob(blob.digest, 1))
    with pytest.raises(ThetaError, match="not here"):
        storage.open(BLOB)

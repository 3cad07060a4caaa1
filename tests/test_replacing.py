from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from git_theta_btm.checkout import replacing
from git_theta_btm.checkout.replacing import named, nameless, replace
from git_theta_btm.errors import ThetaError


@pytest.fixture(params=["unnamed", "named"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to be replaced, on a system with and without files that have no name."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    file = tmp_path / "a model"
    file.write_bytes(b"old")
    file.chmod(0o750)
    return file


def untouched(path: Path, data: bytes = b"old") -> bool:
    """Whether the old file is still there, and nothing beside it."""
    return path.read_bytes() == data and os.listdir(path.parent) == [path.name]


def test_the_new_file_is_there_with_the_old_mode(path: Path) -> None:
    state = replace(str(path), lambda out: _write(out, b"new"), lambda name: Path(name).read_bytes() == b"old")
    assert untouched(path, b"new")
    now = path.stat()
    assert (now.st_ino, now.st_mtime_ns, now.st_ctime_ns) == (state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
    assert now.st_mode & 0o777 == 0o750
    assert 9 < now.st_ctime - now.st_mtime < 60


def test_an_error_leaves_the_old_file(path: Path) -> None:
    def fail(out: int) -> None:
        os.write(out, b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        replace(str(path), fail, lambda name: True)
    assert untouched(path)


def test_an_unexpected_file_stays(path: Path) -> None:
    with pytest.raises(ThetaError, match="meantime"):
        replace(str(path), lambda out: _write(out, b"new"), lambda name: False)
    assert untouched(path)


def test_a_file_that_changes_after_the_last_look_stays(path: Path) -> None:
    looks = []

    def expected(name: str) -> bool:
        looks.append(Path(name).read_bytes())
        if len(looks) == 1:
            path.write_bytes(b"mine")  # by someone else, between the look and the exchange
        return looks[-1] == b"old"

    with pytest.raises(ThetaError, match="meantime"):
        replace(str(path), lambda out: _write(out, b"new"), expected)
    assert looks == [b"old", b"mine"]
    assert untouched(path, b"mine")


def test_a_system_where_files_cannot_change_places(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "_RENAME_EXCHANGE", 1 << 30)  # the kernel knows no such flag
    replace(str(path), lambda out: _write(out, b"new"), lambda name: True)
    assert untouched(path, b"new")


def test_the_old_file_keeps_its_bytes_for_whoever_has_it_open(path: Path) -> None:
    with path.open("rb") as file:
        replace(str(path), lambda out: _write(out, b"new"), lambda name: True)
        assert file.read() == b"old"


def _write(out: int, data: bytes) -> None:
    os.write(out, data)


def test_a_file_without_a_name_takes_the_place(tmp_path: Path) -> None:
    file = tmp_path / "a model"
    file.write_bytes(b"old")
    fd = nameless(str(tmp_path))
    if fd is None:
        pytest.skip("this file system has no files without a name")
    try:
        _write(fd, b"new")
        with pytest.raises(ThetaError, match="meantime"):
            named(fd, str(file), lambda name: False)
    finally:
        os.close(fd)
    assert untouched(file)
    fd = nameless(str(tmp_path))
    assert fd is not None
    try:
        _write(fd, b"new")
        state = named(fd, str(file), lambda name: Path(name).read_bytes() == b"old")
        assert state is not None
        assert state.st_ino == file.stat().st_ino
    finally:
        os.close(fd)
    assert untouched(file, b"new")


def test_a_file_that_can_have_no_name_there(tmp_path: Path) -> None:
    file = tmp_path / "a model"
    file.write_bytes(b"old")
    with TemporaryFile(dir=tmp_path) as other:
        assert named(other.fileno(), str(file), lambda name: True) is None
    assert untouched(file)

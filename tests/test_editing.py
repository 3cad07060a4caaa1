"""A file becomes the next version where it stands only if nobody could notice, and is right or untouched."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from git_theta_btm.checkout.assembling import Assembler, Version
from git_theta_btm.checkout.editing import LEAST, edited, named_again, reopened, shared, worthwhile
from git_theta_btm.errors import CorruptObject, ThetaError
from git_theta_btm.filters.clean import clean
from git_theta_btm.manifest import Manifest
from git_theta_btm.source import BytesSource
from git_theta_btm.store import DiskStore, Forgetful

TENSORS, SIZE = 10, 1 << 20


def container(*changed: int, tail: bytes = b"", last: int = SIZE) -> bytes:
    """Ten tensors of a megabyte, of which some are changed, and the last one may be shorter; then a tail."""
    sizes = [*(TENSORS - 1) * [SIZE], last]
    ends = np.cumsum([0, *sizes]).tolist()
    header = {
        f"t{index}": {"dtype": "U8", "shape": [size], "data_offsets": [ends[index], ends[index + 1]]}
        for index, size in enumerate(sizes)
    }
    text = json.dumps(header).ljust(2000).encode()
    data = b"".join(np.random.default_rng([i, i in changed]).bytes(size) for i, size in enumerate(sizes))
    return len(text).to_bytes(8, "little") + text + data + tail


class Place(NamedTuple):
    """A worktree in which git has put a stub where the old version stood."""

    path: Path
    store: DiskStore
    old: Version

    def turn_into(self, manifest: Manifest) -> os.stat_result | None:
        assembler = Assembler(self.store, Forgetful())
        return edited(assembler, manifest, self.old, str(self.path), lambda name: Path(name).read_bytes() == b"stub")

    def cleaned(self, data: bytes) -> Manifest:
        return clean(BytesSource(data), self.store, Forgetful())

    def untouched(self) -> bool:
        return self.path.read_bytes() == b"stub" and Path(self.old.spare).read_bytes() == container()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = DiskStore(str(tmp_path / "theta"))
    path = tmp_path / "model"
    path.write_bytes(container())
    fd = os.open(path, os.O_RDONLY)
    version = Version(clean(BytesSource(container()), store, Forgetful()), fd, os.fstat(fd))
    named = named_again(version, str(path), str(tmp_path / "names"))
    assert named.fd < 0
    path.unlink()
    path.write_bytes(b"stub")
    path.chmod(0o750)
    old = reopened(named)
    assert old
    yield Place(path, store, old)
    old.close()
    assert os.listdir(tmp_path / "names") == []


@pytest.mark.parametrize(
    "data",
    [
        container(),
        container(3),
        container(0, tail=b"the end"),
        container(last=SIZE - 5),
        container(last=SIZE + 100_000),
    ],
    ids=["the same", "one tensor", "longer by a tail", "shorter", "longer"],
)
def test_it_becomes_the_next_version_with_what_differs(place: Place, data: bytes) -> None:
    before = os.fstat(place.old.fd)
    manifest = place.cleaned(data)
    assert worthwhile(place.old.manifest, manifest)
    state = place.turn_into(manifest)
    assert state
    assert place.path.read_bytes() == data
    now = place.path.stat()
    assert (now.st_ino, now.st_ctime_ns) == (before.st_ino, state.st_ctime_ns)
    assert now.st_mode & 0o777 == 0o750
    assert 9 < now.st_ctime - now.st_mtime < 60


def test_only_what_is_new_is_read(place: Place) -> None:
    manifest = place.cleaned(container(3))
    for digest in {blob.digest for blob in place.old.manifest.needs()} & {entry.digest for entry in manifest.entries}:
        Path(place.store.path(digest)).chmod(0o644)
        Path(place.store.path(digest)).write_bytes(bytes(SIZE))
    assert place.turn_into(manifest)
    assert place.path.read_bytes() == container(3)


def test_all_that_is_new_is_checked_before_the_first_byte(place: Place) -> None:
    manifest = place.cleaned(container(9))
    (new,) = {entry.digest for entry in manifest.entries} - {entry.digest for entry in place.old.manifest.entries}
    Path(place.store.path(new)).chmod(0o644)
    Path(place.store.path(new)).write_bytes(bytes(SIZE))
    with pytest.raises(CorruptObject, match="t9"):
        place.turn_into(manifest)
    assert place.untouched()


@pytest.mark.parametrize("how", ["open", "mapped", "linked", "replaced"])
def test_not_where_somebody_would_notice(place: Place, tmp_path: Path, how: str) -> None:
    manifest = place.cleaned(container(3))
    with open(place.old.spare, "rb") as file:
        if how == "open":
            assert place.turn_into(manifest) is None
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if how == "mapped":
        assert place.turn_into(manifest) is None
        assert view[:] == container()
    view.close()
    if how == "linked":
        os.link(place.old.spare, tmp_path / "snapshot")
        assert place.turn_into(manifest) is None
    elif how == "replaced":
        os.rename(place.old.spare, tmp_path / "elsewhere")
        Path(place.old.spare).write_bytes(container())
        assert place.turn_into(manifest) is None
    assert place.untouched()


def test_not_if_it_was_written_to(place: Place) -> None:
    os.utime(place.old.fd, ns=(0, place.old.state.st_mtime_ns + 1))
    assert place.turn_into(place.cleaned(container(3))) is None
    assert place.untouched()


def test_not_if_much_is_new(place: Place) -> None:
    manifest = place.cleaned(container(3, 4))
    assert not worthwhile(place.old.manifest, manifest)
    assert shared(place.old.manifest, manifest) > 8 * SIZE
    assert place.turn_into(manifest) is None
    assert place.untouched()


def test_what_stands_there_by_now_stays(place: Place) -> None:
    place.path.write_bytes(b"mine")
    with pytest.raises(ThetaError, match="meantime"):
        place.turn_into(place.cleaned(container(3)))
    assert place.path.read_bytes() == b"mine"


def test_a_second_name_that_cannot_be_had(tmp_path: Path, small_disk: Path) -> None:
    """On another disk, for a file that has one already, or where it has been taken away again."""
    path = tmp_path / "model"
    path.write_bytes(bytes(LEAST))
    store = DiskStore(str(tmp_path / "theta"))
    fd = os.open(path, os.O_RDONLY)
    version = Version(clean(BytesSource(bytes(LEAST)), store, Forgetful()), fd, os.fstat(fd))
    assert named_again(version, str(path), str(small_disk)) is version
    os.link(path, tmp_path / "snapshot")
    assert named_again(version, str(path), str(tmp_path / "names")) is version
    assert os.listdir(tmp_path / "names") == []
    assert reopened(version) is version
    os.unlink(tmp_path / "snapshot")
    named = named_again(version, str(path), str(tmp_path / "names"))
    os.unlink(named.spare)
    assert reopened(named) is None

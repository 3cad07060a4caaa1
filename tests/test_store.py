from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.errors import CorruptObject, MissingObject
from git_theta_btm.manifest import Blob, Digest, Stored
from git_theta_btm.parallel import map_threads
from git_theta_btm.store import DiskStore, Forgetful, Known, MemoryStore, ObjectStore, get, put

ABSENT = Digest.of(b"absent")


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return DiskStore(str(tmp_path / "theta")) if request.param == "disk" else MemoryStore()


@pytest.fixture
def disk(tmp_path: Path) -> DiskStore:
    return DiskStore(str(tmp_path / "theta"))


def files(disk: DiskStore) -> list[str]:
    """All files below the store's root."""
    return [os.path.join(directory, name) for directory, _, names in os.walk(disk.root) for name in names]


def test_what_is_put_is_got(store: ObjectStore) -> None:
    oid = put(store, b"some bytes")
    assert oid == Digest.of(b"some bytes")
    assert store.size(oid) == 10
    assert get(store, oid, 10) == b"some bytes"
    with store.open(oid) as source:
        assert source.size == 10
        assert source.read(5, 5) == b"bytes"


def test_an_empty_object(store: ObjectStore) -> None:
    oid = put(store, b"")
    assert store.size(oid) == 0
    assert get(store, oid, 0) == b""


def test_what_is_absent(store: ObjectStore) -> None:
    assert store.size(ABSENT) is None
    with pytest.raises(MissingObject, match=ABSENT), store.open(ABSENT):
        pass
    with pytest.raises(MissingObject, match=ABSENT):
        get(store, ABSENT, 10)


def test_an_object_grows_piece_by_piece(store: ObjectStore) -> None:
    buffer = bytearray(b"first")
    with store.writer() as writer:
        writer.write(memoryview(buffer))
        buffer[:] = b"later"
        writer.write(buffer)
        oid = writer.commit()
    assert get(store, oid, 10) == b"firstlater"


def test_nothing_appears_without_a_commit(store: ObjectStore) -> None:
    with pytest.raises(ZeroDivisionError), store.writer() as writer:
        writer.write(b"half")
        raise ZeroDivisionError
    assert store.size(Digest.of(b"half")) is None


@given(st.binary(max_size=200))
def test_any_bytes_in_memory(data: bytes) -> None:
    store = MemoryStore()
    assert get(store, put(store, data), len(data)) == data


def test_two_writers_of_the_same_object_both_succeed(store: ObjectStore) -> None:
    with store.writer() as first, store.writer() as second:
        for half in (b"one ", b"object"):
            first.write(half)
            second.write(half)
        assert first.commit() == second.commit()
    assert get(store, Digest.of(b"one object"), 10) == b"one object"


def test_many_threads_at_once(disk: DiskStore) -> None:
    contents = [bytes([index % 5]) * 10_000 for index in range(40)]
    assert map_threads(lambda data: put(disk, data), contents, 8) == [Digest.of(data) for data in contents]
    assert sorted(disk) == sorted({Digest.of(data) for data in contents})
    assert len(files(disk)) == 5


# -- on disk ---------------------------------------------------------------------------------------------------------


def test_where_an_object_lies(disk: DiskStore) -> None:
    oid = put(disk, b"x")
    path = Path(disk.root, "objects", oid[:2], oid[2:4], oid)
    assert path.read_bytes() == b"x"
    assert path.stat().st_mode & 0o222 == 0
    assert files(disk) == [str(path)]


def test_all_objects_and_nothing_else(disk: DiskStore) -> None:
    assert list(disk) == []
    oids = {put(disk, bytes([index])) for index in range(10)}
    Path(disk.path(min(oids))).with_name("README").write_text("no object")
    assert set(disk) == oids


def test_an_abandoned_writer_leaves_nothing_behind(disk: DiskStore) -> None:
    with pytest.raises(KeyboardInterrupt), disk.writer() as writer:
        writer.write(b"half")
        raise KeyboardInterrupt
    assert files(disk) == []


def test_a_copy_that_was_cut_short_is_replaced(disk: DiskStore) -> None:
    oid = put(disk, b"whole")
    os.chmod(disk.path(oid), 0o644)
    Path(disk.path(oid)).write_bytes(b"who")
    assert put(disk, b"whole") == oid
    assert get(disk, oid, 5) == b"whole"


@pytest.mark.parametrize("wrong", [b"whale", b"", b"whol", b"whole and more"])
def test_wrong_bytes_are_never_handed_out(disk: DiskStore, wrong: bytes) -> None:
    oid = put(disk, b"whole")
    os.chmod(disk.path(oid), 0o644)
    Path(disk.path(oid)).write_bytes(wrong)
    with pytest.raises(CorruptObject, match=oid):
        get(disk, oid, 5)


def test_an_object_is_read_no_further_than_its_size(disk: DiskStore) -> None:
    oid = put(disk, b"whole")
    os.chmod(disk.path(oid), 0o644)
    os.truncate(disk.path(oid), 1 << 40)  # sparse: reading it whole would not end well
    with pytest.raises(CorruptObject):
        get(disk, oid, 5)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_a_writer_that_is_killed_leaves_no_object(disk: DiskStore) -> None:
    code = """
import os, signal, sys
from git_theta_btm.store import DiskStore
with DiskStore(sys.argv[1]).writer() as writer:
    writer.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, disk.root).returncode == -9
    assert list(disk) == []
    (left,) = files(disk)
    assert os.path.dirname(left) == os.path.join(disk.root, "tmp")
    disk.sweep()
    assert files(disk) == [left]  # its writer may be alive
    os.utime(left, (time.time(), time.time() - 25 * 3600))
    disk.sweep()
    assert files(disk) == []


def test_sweeping_where_nothing_is(disk: DiskStore) -> None:
    disk.sweep()
    assert not os.path.exists(disk.root)


def test_a_file_that_cannot_grow_leaves_nothing_behind(disk: DiskStore) -> None:
    code = """
import resource, sys
from git_theta_btm.store import DiskStore, put
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
put(DiskStore(sys.argv[1]), b"fits")
try:
    put(DiskStore(sys.argv[1]), bytes(1001))
except OSError as error:
    print(error.errno)
"""
    assert run(code, disk.root).stdout == "27\n"  # EFBIG
    assert list(disk) == [Digest.of(b"fits")]
    assert len(files(disk)) == 1


def test_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    disk = DiskStore(str(small_disk / "theta"))
    oid = put(disk, b"fits")
    with pytest.raises(OSError, match="No space left"):
        put(disk, os.urandom(5 << 20))
    assert len(files(disk)) == 1
    assert get(disk, oid, 4) == b"fits"
    assert put(disk, b"fits too") == Digest.of(b"fits too")


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "theta").write_text("a file in the way")
    with pytest.raises(OSError, match="theta"):
        put(DiskStore(str(tmp_path / "theta")), b"x")


# -- memory for one process ------------------------------------------------------------------------------------------


def test_forgetful_knows_what_it_learned() -> None:
    memory, blob = Forgetful(), Blob(ABSENT, 3)
    assert memory.find(b"f", 3) is None
    assert not memory.sampled(b"s", 3)
    memory.learn([Known(blob, b"f", b"s")])
    assert memory.find(b"f", 3) == ABSENT
    assert memory.find(b"f", 4) is None
    assert memory.fingerprint(ABSENT) == b"f"
    assert memory.sampled(b"s", 3)
    stored = Stored("pack", Digest.of(b"pack"), 9)
    memory.learn_stored([(ABSENT, stored)])
    assert memory.stored(ABSENT) == stored
    assert Forgetful().stored(ABSENT) is None


def test_whether_to_wait_for_the_disk_is_asked_for_new_objects_alone(tmp_path: Path) -> None:
    asked: list[bool] = []

    def durable() -> bool:
        asked.append(True)
        return True

    store = DiskStore(str(tmp_path), durable)
    put(store, b"new")
    put(store, b"new")
    assert len(asked) == 1

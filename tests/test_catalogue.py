from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta_btm.catalogue import Catalogue, NoCatalogue, open_catalogue
from git_theta_btm.manifest import Blob, Digest, Entry, Manifest, Stored
from git_theta_btm.parallel import map_threads
from git_theta_btm.store import Known
from git_theta_btm.tensor import DTYPES, Tensor

A, B = Digest.of(b"a"), Digest.of(b"b")


def manifest(seed: int = 0) -> Manifest:
    entry = Entry("w", Tensor(DTYPES["F32"], (2,)), Digest.of(str(seed).encode()))
    return Manifest("npz", 100, Blob(A, 92), (entry,), (), (Stored("pack", B, 200),))


def database(directory: Path) -> Path:
    return directory / "catalogue.sqlite3"


def use(directory: Path) -> None:
    """Everything a catalogue is asked for; where something is remembered, it is right."""
    catalogue = open_catalogue(str(directory))
    try:
        catalogue.learn([Known(Blob(A, 1), b"fingerprint", b"sample")])
        catalogue.learn_stored([(A, Stored("dense", B, 9, (A,)))])
        catalogue.remember("/w/model", manifest(), manifest().dumps())
        catalogue.recognise("/w/model", "key", manifest().digest)
        assert catalogue.find(b"fingerprint", 1) in (A, None)
        assert catalogue.fingerprint(A) in (b"fingerprint", None)
        assert catalogue.sampled(b"sample", 1) in (True, False)
        assert catalogue.stored(A) in (Stored("dense", B, 9, (A,)), None)
        assert catalogue.manifest("/w/model", manifest().digest) in (manifest().dumps(), None)
        assert catalogue.recall("/w/model", "key") in (manifest().dumps(), None)
    finally:
        catalogue.close()


def test_what_is_learned_outlives_the_process(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path))
    seed = catalogue.seed
    catalogue.learn([Known(Blob(A, 3), b"f", b"s"), Known(Blob(B, 4), b"g")])
    catalogue.learn_stored([(A, Stored("dense", B, 9, (A, B)))])
    catalogue.close()
    again = open_catalogue(str(tmp_path))
    assert isinstance(again, Catalogue)
    assert again.seed == seed
    assert (again.find(b"f", 3), again.find(b"f", 4), again.find(b"g", 4)) == (A, None, B)
    assert (again.fingerprint(A), again.fingerprint(Digest.of(b"?"))) == (b"f", None)
    assert (again.sampled(b"s", 3), again.sampled(b"s", 4), again.sampled(b"t", 3)) == (True, False, False)
    assert again.stored(A) == Stored("dense", B, 9, (A, B))
    assert again.stored(B) is None
    again.close()


def test_every_repository_has_a_seed_of_its_own(tmp_path: Path) -> None:
    seeds = set()
    for name in ("a", "b", "c"):
        catalogue = open_catalogue(str(tmp_path / name))
        seeds.add(catalogue.seed)
        catalogue.close()
    assert len(seeds) == 3


def test_a_pass_without_a_sample_keeps_the_earlier_one(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path))
    catalogue.learn([Known(Blob(A, 3), b"f", b"s")])
    catalogue.learn([Known(Blob(A, 3), b"f")])
    assert catalogue.sampled(b"s", 3)
    assert not catalogue.sampled(b"", 3)
    catalogue.close()


def test_manifests_by_path(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path))
    text = manifest().dumps()
    catalogue.remember("/w/a", manifest(), text)
    assert catalogue.manifest("/w/a", manifest().digest) == text
    assert catalogue.manifest("/w/b", manifest().digest) is None
    assert catalogue.manifest("/w/a", manifest(1).digest) is None
    catalogue.recognise("/w/a", "key", manifest().digest)
    assert catalogue.recall("/w/a", "key") == text
    assert catalogue.recall("/w/a", "another") is None
    assert catalogue.recall("/w/b", "key") is None
    catalogue.recognise("/w/a", "key", manifest(1).digest)
    assert catalogue.recall("/w/a", "key") is None
    catalogue.close()


def test_the_last_two_hundred_manifests_of_a_path_are_kept(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path))
    catalogue.remember("/w/b", manifest(), b"other path")
    for seed in range(250):
        catalogue.remember("/w/a", manifest(seed), b"%d" % seed)
    kept = [seed for seed in range(250) if catalogue.manifest("/w/a", manifest(seed).digest)]
    assert 200 <= len(kept) <= 201
    assert kept[-1] == 249
    assert catalogue.manifest("/w/b", manifest().digest) == b"other path"
    catalogue.close()


@pytest.mark.parametrize("path", ["/w/ü 'quoted'; --", "/w/\udcff\udce9", "/w/new\nline", "/w/" + "x" * 4000])
def test_paths_of_any_kind(tmp_path: Path, path: str) -> None:
    catalogue = open_catalogue(str(tmp_path))
    catalogue.remember(path, manifest(), b"text")
    catalogue.recognise(path, "key", manifest().digest)
    assert catalogue.recall(path, "key") == b"text"
    catalogue.close()


# -- a cache that is broken, foreign or in use -----------------------------------------------------------------------


def test_one_that_was_deleted(tmp_path: Path) -> None:
    use(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    use(tmp_path)


def test_one_that_is_deleted_while_it_is_open(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path))
    for file in tmp_path.iterdir():
        file.unlink()
    catalogue.learn([Known(Blob(A, 3), b"f", b"s")])
    assert catalogue.find(b"f", 3) in (A, None)
    catalogue.close()
    use(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"not a database" * 1000, b"SQLite format 3\0", b"SQLite format 3\0" * 600]
)
def test_one_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    database(tmp_path).write_bytes(content)
    use(tmp_path)
    catalogue = open_catalogue(str(tmp_path))
    assert isinstance(catalogue, Catalogue)
    catalogue.close()


@pytest.mark.parametrize("start", [50, 100, 4096, 8192, 12288, 20480])
def test_one_whose_pages_are_damaged(tmp_path: Path, start: int) -> None:
    use(tmp_path)
    content = bytearray(database(tmp_path).read_bytes())
    content[start:] = b"\xa5" * (len(content) - start)
    database(tmp_path).write_bytes(content)
    use(tmp_path)


@pytest.mark.parametrize("size", [1, 100, 4096, 10_000])
def test_one_that_was_cut_short(tmp_path: Path, size: int) -> None:
    use(tmp_path)
    os.truncate(database(tmp_path), size)
    use(tmp_path)


@pytest.mark.parametrize("statement", ["DROP TABLE stored", "DROP TABLE seed", "DELETE FROM seed", "DROP TABLE stat"])
def test_one_that_lacks_something(tmp_path: Path, statement: str) -> None:
    use(tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute(statement)
    db.close()
    use(tmp_path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stored SET oid = 'x'",
        "UPDATE stored SET size = 'x'",
        "UPDATE blob SET digest = '../../x'",
        "UPDATE manifest SET text = x'00'",
        "UPDATE manifest SET text = 'x'",
        "UPDATE stat SET digest = 'x'",
        "UPDATE seed SET value = 'x'",
        "UPDATE seed SET value = x'ffffffffffffffffffffffffffffffff'",
    ],
)
def test_one_whose_rows_are_nonsense(tmp_path: Path, statement: str) -> None:
    use(tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute(statement)
    db.close()
    catalogue = open_catalogue(str(tmp_path))
    assert catalogue.find(b"fingerprint", 1) in (A, None)
    assert catalogue.stored(A) in (Stored("dense", B, 9, (A,)), None)
    assert catalogue.recall("/w/model", "key") in (manifest().dumps(), None)
    assert 0 <= catalogue.seed < 1 << 64
    catalogue.close()


def test_one_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute("CREATE TABLE blob (something, new)")
        db.execute("INSERT INTO blob VALUES (1, 2)")
        db.execute("PRAGMA user_version = 99")
    db.close()
    use(tmp_path)
    with sqlite3.connect(database(tmp_path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
        assert db.execute("SELECT * FROM blob").fetchall() == [(1, 2)]
    db.close()


def test_no_place_for_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    use(tmp_path / "file")
    assert isinstance(open_catalogue(str(tmp_path / "file")), NoCatalogue)
    database(tmp_path).mkdir()
    use(tmp_path)


def test_a_full_disk(small_disk: Path) -> None:
    use(small_disk)
    with (small_disk / "filler").open("wb") as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(bytes(1 << 16))
            filler.flush()
    catalogue = open_catalogue(str(small_disk))
    catalogue.learn([Known(Blob(Digest.of(b"%d" % index), index), b"%16d" % index, b"s") for index in range(5000)])
    catalogue.close()
    use(small_disk)
    (small_disk / "filler").unlink()
    use(small_disk)


def test_many_threads_at_once(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path))

    def work(index: int) -> Digest | None:
        catalogue.learn([Known(Blob(Digest.of(b"%d" % index), index), b"%d" % index, b"s")])
        return catalogue.find(b"%d" % index, index)

    assert map_threads(work, range(50), 8) == [Digest.of(b"%d" % index) for index in range(50)]
    catalogue.close()


def test_several_processes_at_once(tmp_path: Path) -> None:
    code = """
import sys
from git_theta_btm.catalogue import Catalogue, open_catalogue
from git_theta_btm.manifest import Blob, Digest
from git_theta_btm.store import Known
for index in range(20):
    catalogue = open_catalogue(sys.argv[1])
    digest = Digest.of(f"{sys.argv[2]} {index}".encode())
    catalogue.learn([Known(Blob(digest, index), digest.encode(), b"s")])
    assert catalogue.find(digest.encode(), index) == digest
    catalogue.close()
print(catalogue.seed)
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    seeds = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(seeds) == 1
    catalogue = open_catalogue(str(tmp_path))
    for number in range(4):
        for index in range(20):
            digest = Digest.of(f"{number} {index}".encode())
            assert catalogue.find(digest.encode(), index) == digest
    catalogue.close()

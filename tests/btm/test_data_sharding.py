"""Shards: no line is lost, and nothing else is either."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.btm.data.compressed import pieces, writing
from git_theta_btm.btm.data.sharding import shard
from git_theta_btm.errors import ThetaError, UsageError


def make(path: Path, content: bytes) -> Path:
    with writing(str(path), path.name) as file:
        file.write(content)
    return path


def content(*paths: str | Path) -> bytes:
    return b"".join(piece for path in paths for piece in pieces(str(path)))


LINES = b"".join(b'{"text": "%d"}\n' % number for number in range(250))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".jsonl.gz"])
@pytest.mark.parametrize("delete", [False, True])
def test_250_lines_are_three_shards(tmp_path: Path, suffix: str, *, delete: bool) -> None:
    path = make(tmp_path / f"pile{suffix}", LINES)
    found = shard(str(path), 100, delete=delete)
    assert found == [(str(tmp_path / f"pile_{number}{suffix}"), count) for number, count in enumerate((100, 100, 50))]
    assert content(*(name for name, _ in found)) == LINES
    assert path.exists() is not delete


def test_the_same_lines_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.zst", "a.gz"):
        first = make(tmp_path / name, LINES).read_bytes()
        (tmp_path / name).unlink()
        assert make(tmp_path / name, LINES).read_bytes() == first


def test_shards_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = make(tmp_path / "a.jsonl", b"1\n\n3")
    found = shard(str(path), 2, str(tmp_path / "out"))
    assert [(Path(name).read_bytes(), count) for name, count in found] == [(b"1\n\n", 2), (b"3", 1)]
    assert Path(found[0][0]).parent.name == "out"


def test_nothing_is_overwritten_and_nothing_half_done_stays(tmp_path: Path) -> None:
    path = make(tmp_path / "a.jsonl", LINES)
    (tmp_path / "a_1.jsonl").write_text("mine")
    with pytest.raises(ThetaError, match="a_1.jsonl is there already"):
        shard(str(path), 100, delete=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jsonl", "a_1.jsonl"]
    assert (tmp_path / "a_1.jsonl").read_text() == "mine"


def test_a_source_that_is_cut_short_stays_alone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.jsonl.zst", LINES)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ThetaError):
        shard(str(path), 10, delete=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl.zst"]


def test_a_shard_has_a_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        shard(str(make(tmp_path / "a", b"")), 0)


@given(st.lists(st.sampled_from([b"", b"a", b"\r", b"bc" * 9])), st.booleans(), st.integers(1, 7))
def test_any_lines(parts: list[bytes], ended: bool, size: int) -> None:  # noqa: FBT001 - Hypothesis gives it
    import tempfile

    whole = b"\n".join(parts) + (b"\n" if ended else b"")
    with tempfile.TemporaryDirectory() as directory:
        path = make(Path(directory) / "a.txt.gz", whole)
        found = shard(str(path), size)
        assert content(*(name for name, _ in found)) == whole
        assert all(count == size for _, count in found[:-1])
        assert all(0 < count <= size for _, count in found)

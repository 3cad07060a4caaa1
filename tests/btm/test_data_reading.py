"""Text in all shapes that people have it in; what is broken is named by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.btm.data.compressed import pieces
from git_theta_btm.btm.data.documents import BadDocument, lines, parse, spell
from git_theta_btm.btm.data.reading import Document, Layout, Reader
from git_theta_btm.errors import ThetaError
from git_theta_btm.source import BytesSource

TEXTS = ["one", "two\nlines", "ä\u2028\u0000 \U0001f600", "", " "]
ROWS = [{"text": text, "meta": {"pile_set_name": "FreeLaw" if n % 2 else "ArXiv"}} for n, text in enumerate(TEXTS)]
JSONL = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
PLAIN = Layout()
PILE = Layout(domain="meta.pile_set_name")


def read(path: Path, layout: Layout = PLAIN) -> list[Document]:
    return list(Reader(layout).documents([str(path)]))


def write(path: Path, content: bytes) -> Path:
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":  # as two frames, which is one file
        half = len(content) // 2
        content = zstandard.compress(content[:half]) + zstandard.compress(content[half:])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.ndjson"])
def test_lines_of_json(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"\n" + JSONL + b"\r\n")
    assert [found.text for found in read(path)] == TEXTS
    assert [found.domain for found in read(path, PILE)] == ["ArXiv", "FreeLaw", "ArXiv", "FreeLaw", "ArXiv"]


def test_a_list_in_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps(ROWS, indent=1).encode())
    assert [found.text for found in read(path)] == TEXTS


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=2)
    assert [found.text for found in read(path)] == TEXTS
    assert read(path, PILE)[1] == Document(TEXTS[1], "FreeLaw")
    path.write_bytes(b"PAR1" + path.read_bytes()[8:])
    with pytest.raises(ThetaError, match="a.parquet is no Parquet file"):
        read(write(tmp_path / "a.parquet", b"PAR1 and nothing else"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_data_set_on_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.Dataset.from_list(ROWS)
    found.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": found, "test": found}).save_to_disk(tmp_path / "two")
    assert [document.text for document in read(tmp_path / "one")] == TEXTS
    assert read(tmp_path / "one", PILE)[1].domain == "FreeLaw"
    assert [document.text for document in read(tmp_path / "two")] == TEXTS * 2
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(ThetaError, match="one is no data set"):
        read(tmp_path / "one")


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "README", "a.txt.gz", "a.txt.zst"])
def test_plain_text(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\ufeffÄ first\nline\n\n \nsecond\r\n\r\nthird".encode())
    assert [found.text for found in read(path)] == ["Ä first\nline\n\n \nsecond\r\n\r\nthird"]
    assert [found.text for found in read(path, Layout(paragraphs=True))] == ["Ä first\nline", "second", "third"]


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("x")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    (tmp_path / ".hidden").write_bytes(b"\xff")
    assert [found.text for found in read(tmp_path)] == [*TEXTS, "x"]


BROKEN = [
    (b"{", "it is not JSON"),
    (b'{"text": 1}', "its text is int"),
    (b'{"other": "a"}', "it has no field text"),
    (b"[1]", "it has no field text"),
    (b'"text"', "it has no field text"),
    (b'{"text": "\\ud800"}', "surrogate"),
    (b'{"text": "\xff"}', "it is not UTF-8"),
    (b"[" * 100_000, "it is not JSON"),
    (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "it is not JSON"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN)
def test_a_bad_line_is_named_or_counted(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "good"}\n\n' + line + b'\n{"text": "too"}\n')
    with pytest.raises(BadDocument, match=f"a.jsonl:3: .*{reason}"):
        read(path)
    reader = Reader(Layout(), skip_bad=True)
    assert [found.text for found in reader.documents([str(path)])] == ["good", "too"]
    assert reader.bad == 1


def test_a_bad_line_of_plain_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\n\ntwo\n\xff\n\nthree")
    with pytest.raises(BadDocument, match="a.txt:4: it is not UTF-8"):
        read(path)
    reader = Reader(Layout(paragraphs=True), skip_bad=True)
    assert [found.text for found in reader.documents([str(path)])] == ["one", "three"]
    assert reader.bad == 1


def test_a_document_without_its_domain(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "a", "meta": {"pile_set_name": 3}}\n')
    with pytest.raises(BadDocument, match="its meta.pile_set_name is no name"):
        read(path, PILE)
    with pytest.raises(ThetaError, match="plain text"):
        read(write(tmp_path / "a.txt", b"a"), PILE)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_file_that_is_cut_short(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, JSONL * 50)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(ThetaError, match="cut short"):
        read(path)
    path.write_bytes(b"no such thing")
    with pytest.raises(ThetaError, match="broken"):
        read(path)


def test_no_file() -> None:
    with pytest.raises(ThetaError, match="there is no file missing"):
        list(Reader(Layout()).documents(["missing.txt"]))


@given(st.binary())
def test_lines_are_those_of_the_bytes(content: bytes) -> None:
    found = list(lines(BytesSource(content)))
    assert b"\n".join(found) == content.removesuffix(b"\n")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_document_has_one_line(text: str) -> None:
    line = spell(text)
    assert line.count(b"\n") == 1
    assert parse(line) == text


@given(st.binary(max_size=200))
def test_broken_archives_are_told(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        for name in ("a.zst", "a.gz"):
            path = Path(directory) / name
            path.write_bytes(content)
            try:
                assert isinstance(b"".join(pieces(str(path))), bytes)
            except ThetaError as error:
                assert name in str(error)

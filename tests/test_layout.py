from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm.errors import ManifestError
from git_theta_btm.layout import GLUE, Layout, Located, Range, Segment, plan, segments
from git_theta_btm.manifest import Blob, Digest, Entry, Manifest
from git_theta_btm.tensor import DTYPES, Tensor

GOLDEN = (Path(__file__).parent / "golden" / "layout-1.bin").read_bytes()
SIZE = 100  # bytes of the files below


def cut(start: int, end: int) -> Iterator[Range]:
    """Pieces of at most seven bytes."""
    return ((at, min(at + 7, end)) for at in range(start, end, 7))


def located(name: str, offset: int, size: int) -> Located:
    return Located(name, Tensor(DTYPES["U8"], (size,)), offset)


@st.composite
def tensors(draw: st.DrawFn) -> list[Located]:
    """Tensors anywhere in a file: side by side, tied, nested, overlapping, empty."""
    ranges = draw(st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 30)), max_size=8))
    return [located(f"t.{index}", at, min(size, SIZE - at)) for index, (at, size) in enumerate(ranges)]


def described(data: bytes, found: list[Located]) -> tuple[Manifest, Layout]:
    """The manifest and the layout of a file, as ``clean`` makes them."""
    made = plan(len(data), found, cut)
    entries = tuple(
        Entry(item.name, item.tensor, Digest.of(data[item.offset : item.end]), view)
        for item, view in zip(made.located, made.views, strict=True)
    )
    chunks = tuple(Blob(Digest.of(data[start:end]), end - start) for start, end in made.chunks)
    glue = b"".join(data[start:end] for start, end in made.glue)
    layout = Layout(tuple(item.offset for item in made.located), tuple(start for start, _ in made.chunks), glue)
    return Manifest("test", len(data), Blob(Digest.of(layout.dumps()), len(layout.dumps())), entries, chunks), layout


def put_together(data: bytes, found: list[Located]) -> bytes:
    manifest, layout = described(data, found)
    blobs = {Digest.of(data[item.offset : item.end]): data[item.offset : item.end] for item in found}
    blobs |= {
        chunk.digest: data[at : at + chunk.size] for at, chunk in zip(layout.chunks, manifest.chunks, strict=True)
    }
    parts = segments(manifest, layout)
    assert all(part.size == len(blobs[part.blob.digest] if part.blob else part.glue) for part in parts)
    return b"".join(blobs[part.blob.digest] if part.blob else part.glue for part in parts)


# -- plan ------------------------------------------------------------------------------------------------------------


@given(tensors())
def test_a_plan_covers_the_file_exactly(found: list[Located]) -> None:
    made = plan(SIZE, found, cut)
    owned = {
        (item.offset, item.end)
        for item, view in zip(made.located, made.views, strict=True)
        if not view and item.tensor.nbytes
    }
    ranges = sorted([*owned, *made.chunks, *made.glue])
    assert [byte for start, end in ranges for byte in range(start, end)] == list(range(SIZE))
    assert sorted(made.located, key=lambda item: item.name) == sorted(found, key=lambda item: item.name)
    assert list(made.chunks) == sorted(made.chunks)


@given(tensors())
def test_views_lie_within_chunks(found: list[Located]) -> None:
    made = plan(SIZE, found, cut)
    covered = {byte for start, end in made.chunks for byte in range(start, end)}
    for item, view in zip(made.located, made.views, strict=True):
        assert (
            covered.issuperset(range(item.offset, item.end))
            if view
            else covered.isdisjoint(range(item.offset, item.end))
        )


@given(st.binary(min_size=SIZE, max_size=SIZE), tensors())
def test_segments_put_the_file_together_again(data: bytes, found: list[Located]) -> None:
    assert put_together(data, found) == data


def test_tied_tensors_are_one_blob_and_no_views() -> None:
    made = plan(SIZE, [located("a", 10, 20), located("b", 10, 20), located("c", 30, 5)], cut)
    assert made.views == (False, False, False)
    assert made.chunks == ()
    assert made.glue == ((0, 10), (35, 100))


def test_overlapping_tensors_are_views_of_chunks() -> None:
    made = plan(SIZE, [located("whole", 10, 20), located("half", 10, 10), located("other", 40, 10)], cut)
    assert [item.name for item in made.located] == ["half", "other", "whole"]
    assert made.views == (True, False, True)
    assert made.chunks == ((10, 17), (17, 24), (24, 30))


def test_empty_tensors_own_nothing() -> None:
    made = plan(SIZE, [located("in", 15, 0), located("around", 10, 20), located("end", SIZE, 0)], cut)
    assert made.views == (False, False, False)
    assert made.glue == ((0, 10), (30, 100))


def test_long_glue_is_cut_and_short_glue_is_not() -> None:
    size = 2 * GLUE + 11
    made = plan(size, [located("t", GLUE, 10)], lambda start, end: [(start, end)])
    assert made.glue == ((0, GLUE),)
    assert made.chunks == ((GLUE + 10, size),)


def test_a_file_without_tensors() -> None:
    assert plan(0, [], cut).glue == ()
    assert plan(SIZE, [], cut).glue == ((0, SIZE),)


def test_many_overlapping_tensors_take_time_in_proportion() -> None:
    found = [located(f"t.{index}", index, 50_000) for index in range(50_000)]
    started = time.perf_counter()
    made = plan(100_000, found, lambda start, end: [(start, end)])
    assert all(made.views)
    assert made.chunks == ((0, 99_999),)
    assert time.perf_counter() - started < 5  # about 0.3 s; in quadratic time, minutes


# -- the layout's own bytes ------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 1 << 62)).map(tuple), st.lists(st.integers(0, 1 << 62)).map(tuple), st.binary(max_size=50)
)
def test_what_is_written_is_read_back(offsets: tuple[int, ...], chunks: tuple[int, ...], glue: bytes) -> None:
    layout = Layout(offsets, chunks, glue)
    assert Layout.loads(layout.dumps()) == layout


def test_the_golden_layout_loads_and_is_written_the_same_for_ever() -> None:
    layout = Layout.loads(GOLDEN)
    assert layout == Layout((4104, 4104, 4108, 4120), (8192,), b"glue glue glue \x00\xff\n")
    assert layout.dumps() == GOLDEN


def text(table: object, *, first: bytes = b"git-theta-btm layout 1\n") -> bytes:
    written = table if isinstance(table, bytes) else json.dumps(table, separators=(",", ":")).encode()
    return first + written + b"\nglue"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"git-theta-btm layout 1\n",
        text({"chunks": [], "offsets": []}, first=b"git-theta-btm layout 2\n"),
        text({"chunks": [], "offsets": []}, first=b""),
        text({"offsets": [], "chunks": []}),
        text({"chunks": []}),
        text({"chunks": [], "more": 1, "offsets": []}),
        text({"chunks": [-1], "offsets": []}),
        text({"chunks": [], "offsets": [-1]}),
        text({"chunks": [], "offsets": [1.5]}),
        text({"chunks": [], "offsets": [1e300]}),
        text({"chunks": [True], "offsets": []}),
        text({"chunks": [None], "offsets": []}),
        text({"chunks": "", "offsets": ""}),
        text({"chunks": "12", "offsets": []}),
        text({"chunks": {}, "offsets": []}),
        text({"chunks": [[1]], "offsets": []}),
        text([1, 2]),
        text(7),
        text(None),
        text(b'{"chunks":[NaN],"offsets":[]}'),
        text(b'{"chunks":[01],"offsets":[]}'),
        text(b'{"chunks": [],"offsets":[]}'),
        text(b'{"chunks":[],"chunks":[],"offsets":[]}'),
        text(b'{"chunks":[' + b"9" * 200_000 + b'],"offsets":[]}'),
        text(b'{"chunks":' + b"[" * 200_000 + b"]" * 200_000 + b',"offsets":[]}'),
        text('{"chunks":[],"offsets":[]}'.encode("utf-16-le")),
        text(b"\xff\xfe"),
    ],
)
def test_what_is_no_layout(data: bytes) -> None:
    with pytest.raises(ManifestError):
        Layout.loads(data)


@pytest.mark.parametrize("depth", range(900, 1100))
def test_no_depth_of_nesting_gets_through(depth: int) -> None:
    with pytest.raises(ManifestError):
        Layout.loads(text(b'{"chunks":' + b"[" * depth + b"]" * depth + b',"offsets":[]}'))


@given(st.integers(0, len(GOLDEN) - 1), st.binary(max_size=3))
def test_whatever_is_done_to_a_layout(at: int, replacement: bytes) -> None:
    data = GOLDEN[:at] + replacement + GOLDEN[at + 1 :]
    with suppress(ManifestError):
        assert Layout.loads(data).dumps() == data


# -- hostile layouts -------------------------------------------------------------------------------------------------


def hostile(size: int, sizes: list[int], layout: Layout, chunks: list[int] | None = None) -> list[Segment]:
    entries = tuple(
        Entry(f"t.{index}", Tensor(DTYPES["U8"], (length,)), Digest.of(bytes([index])))
        for index, length in enumerate(sizes)
    )
    blobs = tuple(Blob(Digest.of(b"c"), length) for length in chunks or [])
    return segments(Manifest("test", size, Blob(Digest.of(b""), 0), entries, blobs), layout)


@pytest.mark.parametrize(
    ("size", "sizes", "layout", "chunks"),
    [
        (10, [10], Layout((), (), b""), []),
        (10, [], Layout((), (), b""), []),
        (10, [], Layout((), (), b"123456789"), []),
        (10, [], Layout((), (), b"12345678901"), []),
        (10, [10], Layout((0,), (), b"g"), []),
        (10, [10], Layout((1,), (), b"g"), []),
        (10, [6, 6], Layout((0, 4), (), b""), []),
        (10, [6, 4], Layout((0, 0), (), b"1234"), []),
        (10, [4], Layout((1 << 200,), (), b"123456"), []),
        (10, [11], Layout((0,), (), b""), []),
        (1 << 62, [4], Layout((0,), (), b""), []),
        (10, [10], Layout((0,), (0,), b""), []),
        (10, [10], Layout((0,), (0,), b""), [5]),
        (10, [10], Layout((0,), (5,), b""), [5]),
        (10, [], Layout((), (0,), b""), [1 << 62]),
        (10, [], Layout((), (0, 4), b""), [5, 5]),
    ],
)
def test_segments_that_do_not_cover_the_file(size: int, sizes: list[int], layout: Layout, chunks: list[int]) -> None:
    with pytest.raises(ManifestError):
        hostile(size, sizes, layout, chunks)


def test_two_digests_for_the_same_bytes() -> None:
    with pytest.raises(ManifestError):
        hostile(10, [10, 10], Layout((0, 0), (), b""))


@given(
    st.lists(st.integers(0, 20), max_size=4),
    st.lists(st.integers(0, 40), max_size=4),
    st.lists(st.integers(0, 20), max_size=3),
    st.lists(st.integers(0, 40), max_size=3),
    st.binary(max_size=20),
)
def test_whatever_a_layout_says(
    sizes: list[int], offsets: list[int], chunks: list[int], places: list[int], glue: bytes
) -> None:
    try:
        parts = hostile(40, sizes, Layout(tuple(offsets), tuple(places), glue), chunks)
    except ManifestError:
        return
    assert sum(part.size for part in parts) == 40
    assert b"".join(part.glue for part in parts) == glue

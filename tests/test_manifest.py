from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import ConflictMarkers, ManifestError
from git_theta_btm.manifest import (
    FIRST_LINE,
    PACKED,
    Blob,
    Digest,
    Entry,
    Manifest,
    Stored,
    is_later,
    is_manifest,
    loads,
    order,
    spell,
)
from git_theta_btm.tensor import DTYPES, Tensor

GOLDEN = (Path(__file__).parent / "golden" / "manifest-1.txt").read_bytes()
EMPTY = Digest.of(b"")

digests = st.binary(max_size=8).map(Digest.of)
blobs = st.builds(Blob, digests, st.integers(0, 1 << 40))
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
NASTY = [
    " ", "a b", "a\nb", "a\rb", "a\tb", "\x00", "\x1b[31mred", "\x7f", "\u202egnp.exe", "\u2028", "\ufeff", "ü", "語",
    "\U0001f469\u200d\U0001f680", "\ud800", "\udfff", '"', '""', '"a"', "\\", "'", "object", "../../etc/passwd",
    "h.02", "h.2", "h.10", "٣", "a" * 5000, "-", "--", "",
]  # fmt: skip
# Both halves of a pair, as two characters, have the same JSON as the one character: formats keep such names out.
names = st.one_of(
    st.sampled_from(NASTY),
    st.text(),
    st.text(st.characters(codec=None)).filter(lambda name: json.loads(json.dumps(name)) == name),
    st.from_regex("h\\.[0-9]{1,3}", fullmatch=True),
)
tensors = st.builds(
    lambda dtype, shape: Tensor(DTYPES[dtype], tuple(shape)),
    st.sampled_from(sorted(name for name, dtype in DTYPES.items() if dtype.block == 1)),
    st.lists(st.integers(0, 1 << 15), max_size=3),
)


objects = st.one_of(
    st.builds(Stored, st.sampled_from(["pack", "raw"]), digests, st.integers(0, 1 << 62)),
    st.builds(
        Stored,
        words.filter(lambda word: word not in ("pack", "raw")),
        digests,
        st.integers(0, 1 << 62),
        st.lists(digests, min_size=1, max_size=3).map(tuple),
    ),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    chosen = sorted(draw(st.sets(names, max_size=6)), key=order)
    return Manifest(
        format=draw(words),
        size=draw(st.integers(0, 1 << 62)),
        layout=draw(blobs),
        entries=tuple(Entry(name, draw(tensors), draw(digests), draw(st.booleans())) for name in chosen),
        chunks=tuple(draw(st.lists(blobs, max_size=3))),
        objects=tuple(sorted(draw(st.sets(objects, max_size=3)))),
    )


def small(**changes: object) -> Manifest:
    """A manifest of two parameters and one pack, with ``changes``."""
    entries = tuple(Entry(name, Tensor(DTYPES["F32"], (2, 3)), Digest.of(name.encode())) for name in ("a", "b"))
    plain = Manifest("npz", 1000, Blob(EMPTY, 100), entries, (), (Stored("pack", Digest.of(b"pack"), 148),))
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def signed(text: str) -> bytes:
    """A manifest's lines after the first two, with the digest that they should have."""
    identity = "".join(line + "\n" for line in text.splitlines() if not line.startswith("object "))
    return f"{FIRST_LINE}\ndigest {Digest.of(identity.encode())}\n{text}".encode()


def body(manifest: Manifest) -> str:
    return manifest.dumps().decode().split("\n", 2)[2]


# -- reading back ----------------------------------------------------------------------------------------------------


@given(manifests())
@example(small())
def test_what_is_written_is_read_back(manifest: Manifest) -> None:
    text = manifest.dumps()
    assert loads(text) == manifest
    assert loads(text).digest == manifest.digest
    assert loads(text).dumps() == text
    assert is_manifest(text)


@pytest.mark.parametrize("name", NASTY)
def test_no_name_can_forge_a_line_or_steer_a_terminal(name: str) -> None:
    word = spell(name)
    assert word.isascii()
    assert word.isprintable()
    assert " " not in word
    assert (json.loads(word) if word.startswith('"') else word) == name


def test_the_golden_manifest_loads_and_is_written_the_same_for_ever() -> None:
    manifest = loads(GOLDEN)
    assert manifest.dumps() == GOLDEN
    assert manifest.digest == "f745704b2a2f4952420c962de2ce6dfd66c02305efa68bd4e7617e4756221371"
    assert manifest.format == "safetensors"
    assert manifest.size == 123456789
    assert [entry.name for entry in manifest.entries] == [
        "h.2.attn.weight",
        "h.2.attn.weight.T",
        "h.10.attn.weight",
        "h.10.scale",
        "quant",
        'with space, "quotes", \\, é, \u202e, \x1b, \x7f and\nnewline \ud800',
    ]
    assert [entry.view for entry in manifest.entries] == [False, True, False, False, False, False]
    assert [str(entry.tensor) for entry in manifest.entries] == [
        "F32[768,768]", "F32[768,3072:1,768]", "BF16[768,768]", "F32[]", "Q4_0[4096,32]", "U8[0,3]",
    ]  # fmt: skip
    assert [chunk.size for chunk in manifest.chunks] == [20000000, 16]
    assert [stored.kind for stored in manifest.objects] == ["delta", "dense", "pack", "raw"]
    assert [len(stored.rest) for stored in manifest.objects] == [2, 1, 0, 0]


def test_the_first_line_tells_what_to_do() -> None:
    assert GOLDEN.startswith(FIRST_LINE.encode() + b"\n")
    assert "pip install git-theta-btm" in FIRST_LINE
    assert "git theta install" in FIRST_LINE


# -- order -----------------------------------------------------------------------------------------------------------


def test_natural_order() -> None:
    expected = ["", "0", "1", "01", "2", "10", "h", "h.1", "h.1.b", "h.2", "h.02", "h.10", "h.10.w", "h.x", "i"]
    assert sorted(reversed(expected), key=order) == sorted(expected, key=order)
    ordered = sorted(expected, key=order)
    assert ordered.index("h.2") < ordered.index("h.10") < ordered.index("h.x")
    assert ordered.index("2") < ordered.index("10")


def test_a_number_of_many_digits_costs_nothing() -> None:
    long, longer = "h." + "9" * 200_000, "h.1" + "0" * 200_000
    assert order(long) < order(longer)
    entries = tuple(Entry(name, Tensor(DTYPES["U8"], (1,)), EMPTY) for name in (long, longer))
    manifest = small(entries=entries)
    assert loads(manifest.dumps()) == manifest


@given(st.lists(names, min_size=3, max_size=3))
def test_order_is_total(three: list[str]) -> None:
    first, second, third = sorted(three, key=order)
    assert order(first) <= order(second) <= order(third)
    assert (order(first) == order(second)) == (first == second)


@pytest.mark.parametrize("version", ["0", "2", "10"])
def test_a_later_version_is_a_manifest_that_needs_a_newer_program(version: str) -> None:
    text = GOLDEN.replace(b"manifest 1:", f"manifest {version}:".encode())
    assert is_manifest(text) and is_later(text) and not is_later(GOLDEN)
    with pytest.raises(ManifestError, match="needs a newer git-theta-btm"):
        loads(text)


# -- what is refused -------------------------------------------------------------------------------------------------


def test_every_edit_of_one_line_is_noticed() -> None:
    lines = GOLDEN.split(b"\n")
    for number, line in enumerate(lines[:-1]):
        if line.startswith(b"object "):
            continue  # where bytes are stored is not what they are
        edited = [*lines]
        for edit in (line[:-1] + bytes([line[-1] ^ 1]), line + b" ", b" " + line, line + b"\r"):
            edited[number] = edit
            with pytest.raises(ManifestError):
                loads(b"\n".join(edited))
        with pytest.raises(ManifestError):
            loads(b"\n".join(lines[:number] + lines[number + 1 :]))
        with pytest.raises(ManifestError):
            loads(b"\n".join(lines[: number + 1] + lines[number:]))


def test_an_edited_object_line_is_another_manifest_or_none() -> None:
    text = small().dumps()
    moved = text.replace(b" 148\n", b" 149\n")
    assert loads(moved).objects[0].size == 149
    for broken in (
        b" 0148\n",
        b" +148\n",
        b" 148 \n",
        b"  148\n",
        b"\t148\n",
        b" -1\n",
        b"  \n",
        b" 1_0\n",
        b" " + b"9" * 19 + b"\n",
    ):
        with pytest.raises(ManifestError):
            loads(text.replace(b" 148\n", broken))


@pytest.mark.parametrize("keyword", ["digest", "format", "size", "layout"])
def test_a_line_that_is_missing_is_told_in_our_own_words(keyword: str) -> None:
    text = b"".join(line for line in GOLDEN.splitlines(keepends=True) if not line.startswith(keyword.encode() + b" "))
    with pytest.raises(ManifestError, match="broken manifest: a line is missing"):
        loads(text)


@pytest.mark.parametrize("cut", [0, 1, 30, len(FIRST_LINE), len(FIRST_LINE) + 1, len(FIRST_LINE) + 20, -1, -2, -66])
def test_a_manifest_cut_short(cut: int) -> None:
    with pytest.raises(ManifestError):
        loads(GOLDEN[:cut])


@pytest.mark.parametrize("tail", [b"\n", b" ", b"\x00", b"more\n", b"object\n", b"\xff", b"param a\n", b"\n\n"])
def test_a_manifest_with_more_behind_it(tail: bytes) -> None:
    with pytest.raises(ManifestError):
        loads(GOLDEN + tail)


@pytest.mark.parametrize(
    "line",
    [
        "param c",
        "param c F32[2,3]",
        f"param c F32[2,3] {EMPTY} more",
        f"param c F32[2,3] {EMPTY.upper()}",
        f"param c F32[2,3] {EMPTY[:-1]}",
        f"param c F32[02,3] {EMPTY}",
        f"param c F32[-2,3] {EMPTY}",
        f"param c F99[2,3] {EMPTY}",
        f"param c F32[{'9' * 19}] {EMPTY}",
        f"param c F32[{','.join(['9' * 18] * 64)}] {EMPTY}",
        f"param c F32[{','.join('1' * 65)}] {EMPTY}",
        f"param c F32[{'9' * 200_000}] {EMPTY}",
        f"param  F32[2,3] {EMPTY}",
        f'param "c" F32[2,3] {EMPTY}',
        f'param "c F32[2,3] {EMPTY}',
        f'param "\\u00E9" F32[2,3] {EMPTY}',
        f'param "é" F32[2,3] {EMPTY}',
        f"param é F32[2,3] {EMPTY}",
        f"param [1] F32[2,3] {EMPTY}\nparam [1] F32[2,3] {EMPTY}",
        f"param b F32[2,3] {EMPTY}",
        f"param B F32[2,3] {EMPTY}",
        f"chunk 1 {EMPTY}\nparam c F32[2,3] {EMPTY}",
        f"chunk {EMPTY}",
        f"chunk -1 {EMPTY}",
        f"chunk ٣ {EMPTY}",
        f"chunk {'9' * 200_000} {EMPTY}",
        "delta c something",
        "",
    ],
)
def test_lines_that_are_no_lines(line: str) -> None:
    identity = body(small(objects=())) + line + "\n"
    with pytest.raises(ManifestError):
        loads(signed(identity))


@pytest.mark.parametrize(
    "line",
    [
        "object pack",
        f"object pack {EMPTY}",
        "object pack ../../x 1",
        f"object pack {EMPTY[:-2]}/x 1",
        f"object pack {EMPTY} {1 << 63}",
        f"object pack {EMPTY} {'9' * 200_000}",
        f"object pack {EMPTY} 1\nobject pack {EMPTY} 1",
        f"object pack {Digest.of(b'')} 1\nobject pack {'0' * 64} 1",
    ],
)
def test_objects_that_are_no_objects(line: str) -> None:
    with pytest.raises(ManifestError):
        loads(signed(body(small(objects=())) + line + "\n"))


@pytest.mark.parametrize(
    "line", ["size 01", "size -1", f"size {1 << 63}", "size x", "size", "size 1 2", "sizes 1000", ""]
)
def test_a_size_that_is_none(line: str) -> None:
    with pytest.raises(ManifestError):
        loads(signed(body(small()).replace("size 1000", line)))


def test_line_ends_that_git_translated() -> None:
    text = FIRST_LINE.encode() + b"\nrest\n"
    with pytest.raises(ManifestError, match="translated the ends .* 'git theta doctor' says why"):
        loads(text.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("format_name", ["\x1b[31m", "\u202e", "a\tb", "é", "", "a\rb"])
def test_a_format_that_is_no_plain_word(format_name: str) -> None:
    with pytest.raises(ManifestError):
        loads(signed(body(small()).replace("format npz", f"format {format_name}")))


@pytest.mark.parametrize("marker", [b"<<<<<<< HEAD\n", b"=======\n", b">>>>>>> theirs\n", b"||||||| base\n"])
def test_conflict_markers_have_an_error_of_their_own(marker: bytes) -> None:
    lines = GOLDEN.splitlines(keepends=True)
    with pytest.raises(ConflictMarkers):
        loads(b"".join([*lines[:5], marker, *lines[5:]]))


def test_conflict_markers_within_a_line_are_none() -> None:
    entry = Entry("a.=======.>>>>>>>.<<<<<<<", Tensor(DTYPES["F32"], (2, 3)), EMPTY)
    assert loads(small(entries=(entry,)).dumps()).entries == (entry,)


@settings(max_examples=200)
@given(
    st.sampled_from([GOLDEN, small().dumps()]),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4)), min_size=1, max_size=3),
)
def test_whatever_is_done_to_a_manifest(text: bytes, edits: list[tuple[int, bytes]]) -> None:
    for at, replacement in edits:
        at %= len(text)
        text = text[:at] + replacement + text[at + len(replacement) // 2 :]
    with suppress(ManifestError):
        assert loads(text).dumps() == text


@settings(max_examples=200)
@given(st.lists(st.text('abc 09[]":,-\\\n', max_size=40), max_size=6))
def test_whatever_the_lines_say(lines: list[str]) -> None:
    text = body(small()) + "".join(
        f"{word} {line}\n" for word, line in zip(["param", "view", "chunk", "object"] * 2, lines, strict=False)
    )
    with suppress(ManifestError):
        assert loads(signed(text)).dumps() == signed(text)


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "../" + "a" * 61, "٣" * 64]
)
def test_a_digest_cannot_hold_anything_else(text: str) -> None:
    with pytest.raises(ManifestError):
        Digest(text)


def test_storage_has_no_say_in_the_digest_and_identity_all() -> None:
    manifest = small()
    assert small(objects=()).digest == manifest.digest
    changed = [
        small(size=1001),
        small(format="npy"),
        small(layout=Blob(EMPTY, 101)),
        small(chunks=(Blob(EMPTY, 1),)),
        small(entries=manifest.entries[:1]),
        small(entries=(manifest.entries[0], dataclasses.replace(manifest.entries[1], view=True))),
    ]
    assert len({manifest.digest, *(other.digest for other in changed)}) == 1 + len(changed)


def test_what_a_manifest_is_made_of_and_what_it_needs() -> None:
    large = Tensor(DTYPES["U8"], (PACKED + 1,))
    entries = (
        Entry("large", large, Digest.of(b"large")),
        Entry("tied", large, Digest.of(b"large")),
        Entry("view", large, Digest.of(b"view"), view=True),
        Entry("tiny", Tensor(DTYPES["U8"], (PACKED,)), Digest.of(b"tiny")),
        Entry("void", Tensor(DTYPES["U8"], (0,)), EMPTY),
    )
    chunk = Blob(Digest.of(b"chunk"), 1 << 20)
    pack = Stored("pack", Digest.of(b"pack"), 20_000)
    manifest = small(
        entries=tuple(sorted(entries, key=lambda entry: order(entry.name))), chunks=(chunk,), objects=(pack,)
    )
    sizes = {Digest.of(b"large"): PACKED + 1, Digest.of(b"tiny"): PACKED, chunk.digest: chunk.size, EMPTY: 100}
    assert {blob.digest: blob.size for blob in manifest.blobs()} == sizes
    assert len(list(manifest.blobs())) == len(sizes)
    assert set(manifest.needs()) == {Blob(pack.oid, 20_000), Blob(Digest.of(b"large"), PACKED + 1), chunk}

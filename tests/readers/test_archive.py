"""Zip archives: members are found where ``zipfile`` finds them, and an archive that lies is refused."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import FormatError
from git_theta_btm.readers.archive import Member, members
from git_theta_btm.source import BytesSource

CONTENT = {"a": b"first", "folder/b": b"", "ünï/c": bytes(range(256)), "../../d": b"fourth"}


def archive(content: dict[str, bytes], *, comment: bytes = b"", wide: bool = False) -> bytes:
    """What ``zipfile`` writes; ``wide`` as to a pipe or for large members: sizes in zip64 fields."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.comment = comment
        for name, data in content.items():
            with target.open(zipfile.ZipInfo(name), "w", force_zip64=wide) as member:
                member.write(data)
    return file.getvalue()


def zip64(data: bytes) -> bytes:
    """``data`` with its directory described by zip64 records and every field of the ordinary end full."""
    end = data.rindex(b"PK\5\6")
    _, _, _, count, _, size, offset, _ = struct.unpack_from("<4s4H2LH", data, end)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + short


def contents(data: bytes) -> dict[str, bytes]:
    found = members(BytesSource(data))
    return {name: data[at.offset : at.offset + at.size] for name, at in found.items() if at}


def patched(data: bytes, at: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, value)
    return bytes(changed)


def refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        members(BytesSource(data))


@pytest.mark.parametrize("comment", [b"", b"a comment", b"x" * 65535])
def test_members_are_where_they_are(comment: bytes) -> None:
    assert contents(archive(CONTENT, comment=comment)) == CONTENT
    assert contents(archive(CONTENT, comment=comment, wide=True)) == CONTENT


def test_zip64_records_count_where_the_ordinary_ones_are_full() -> None:
    data = zip64(archive(CONTENT))
    assert contents(data) == CONTENT
    assert contents(archive({})) == contents(zip64(archive({}))) == {}


def test_a_member_written_to_a_pipe_has_its_sizes_behind_it() -> None:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as target:
        target.writestr("a", b"first")
    assert contents(pipe.data) == {"a": b"first"}


def test_compressed_and_encrypted_members_are_named_but_not_located() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("packed", b"x" * 100, zipfile.ZIP_DEFLATED)
        target.writestr("stored", b"y" * 100)
    data = file.getvalue()
    found = members(BytesSource(data))
    assert found == {"packed": None, "stored": Member("stored", data.index(b"yyy"), 100)}
    secret = bytearray(archive({"a": b"first"}))
    secret[6] |= 1
    secret[secret.index(b"PK\1\2") + 8] |= 1
    assert members(BytesSource(secret)) == {"a": None}


def test_names_that_are_not_utf8_stay_different() -> None:
    data = archive({"aa": b"1", "bb": b"2"})
    data = data.replace(b"aa", b"\xff\xfe").replace(b"bb", b"\xfe\xff")
    assert [name.encode("utf-8", "surrogateescape") for name in contents(data)] == [b"\xff\xfe", b"\xfe\xff"]


def test_an_archive_that_was_cut_off() -> None:
    data = archive(CONTENT, comment=b"the end")
    for size in range(0, len(data), 7):
        refused(data[:size])
    refused(data[:-1])
    refused(data + b"x")
    refused(b"in front" + data)


END = {"disk": (4, "<H"), "directory's disk": (6, "<H"), "entries": (8, "<H"), "all entries": (10, "<H"),
       "size": (12, "<L"), "offset": (16, "<L"), "comment": (20, "<H")}  # fmt: skip
CENTRAL = {"signature": (0, "<L"), "method": (10, "<H"), "packed": (20, "<L"), "size": (24, "<L"), "name": (28, "<H"),
           "extra": (30, "<H"), "comment": (32, "<H"), "disk": (34, "<H"), "header": (42, "<L")}  # fmt: skip
LOCAL = {"signature": (0, "<L"), "flags": (6, "<H"), "method": (8, "<H"), "checksum": (14, "<L"),
         "packed": (18, "<L"), "size": (22, "<L"), "name": (26, "<H")}  # fmt: skip
END64 = {"signature": (0, "<L"), "length": (4, "<Q"), "disk": (16, "<L"), "entries": (24, "<Q"),
         "all entries": (32, "<Q"), "size": (40, "<Q"), "offset": (48, "<Q")}  # fmt: skip
LOCATOR = {"disk": (4, "<L"), "offset": (8, "<Q"), "disks": (16, "<L")}


def lies() -> Iterator[object]:
    plain, wide = archive({"a": b"first", "b": b"second"}), zip64(archive({"a": b"first", "b": b"second"}))
    records = [(plain, b"PK\5\6", END), (plain, b"PK\1\2", CENTRAL), (plain, b"PK\3\4", LOCAL),
               (wide, b"PK\6\6", END64), (wide, b"PK\6\7", LOCATOR)]  # fmt: skip
    for data, signature, fields in records:
        start = data.index(signature)
        for name, (at, form) in fields.items():
            (value,) = struct.unpack_from(form, data, start + at)
            top = (1 << 8 * struct.calcsize(form)) - 1
            for lie in {value + 1, value ^ 2, top, top - 1, 1 << 8} - {value}:
                yield pytest.param(patched(data, start + at, form, lie), id=f"{signature!r} {name} {lie}")


@pytest.mark.parametrize("data", list(lies()))
def test_fields_that_lie(data: bytes) -> None:
    refused(data)


def test_names_that_stand_twice() -> None:
    data = archive({"aa": b"1", "bb": b"2"})
    with pytest.raises(FormatError, match="two members"):
        members(BytesSource(data.replace(b"bb", b"aa")))


def test_members_that_overlap() -> None:
    inner = archive({"inner": b"data"})
    data = archive({"outer": inner[: inner.index(b"PK\1\2")], "inner": b"data"})
    assert len(contents(data)) == 2
    second = data.rindex(b"PK\1\2")
    with pytest.raises(FormatError, match="overlap"):
        members(BytesSource(patched(data, second + 42, "<L", data.index(b"PK\3\4", 1))))


def test_a_member_inside_the_directory() -> None:
    data = archive({"a": b"x" * 5})
    start = data.index(b"PK\1\2")
    for field in (20, 24):
        data = patched(data, start + field, "<L", 6)
    for field in (18, 22):
        data = patched(data, field, "<L", 6)
    refused(data)


def test_zip64_sizes_that_are_missing_or_wrong() -> None:
    data = archive({"a": b"first"}, wide=True)
    extra = data.index(struct.pack("<HHQQ", 1, 16, 5, 5))
    for at, form, value in ((0, "<H", 2), (2, "<H", 8), (2, "<H", 17), (4, "<Q", 6), (12, "<Q", 1 << 63)):
        refused(patched(data, extra + at, form, value))
    start = data.index(b"PK\1\2")
    refused(patched(data, start + 24, "<L", 0xFFFFFFFF))


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.sampled_from([archive(CONTENT), zip64(archive(CONTENT, wide=True))]))
def test_archives_with_some_bytes_changed(random: Random, valid: bytes) -> None:
    data = bytearray(valid)
    for _ in range(random.randint(1, 4)):
        data[random.randrange(len(data))] = random.choice([0, 1, 255, random.randrange(256)])
    try:
        found = members(BytesSource(data))
    except FormatError:
        return
    assert all(at is None or 0 <= at.offset <= at.offset + at.size <= len(data) for at in found.values())

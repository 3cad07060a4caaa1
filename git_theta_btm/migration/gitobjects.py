"""Git's objects as bytes: trees, the headers of commits and tags, and packs of new objects.

Specifications: https://git-scm.com/docs/pack-format and https://git-scm.com/book/en/v2/Git-Internals-Git-Objects.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import new as new_hash

from ..errors import ThetaError
from ..git import Git

TREE = b"40000"
FILES = (b"100644", b"100755", b"100664")  # the last is in old repositories
_KINDS = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}
_HEADER = struct.Struct(">4sII")
_FULL = 32 << 20  # bytes of a pack that are kept in memory
_SIGNATURES = (b"gpgsig", b"gpgsig-sha256")
_ARMOUR = (b"\n-----BEGIN PGP SIGNATURE-----", b"\n-----BEGIN SSH SIGNATURE-----", b"\n-----BEGIN SIGNED MESSAGE-----")


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One row of a tree: its mode in octal digits, its name, and the object's name in hexadecimal."""

    mode: bytes
    name: bytes
    oid: str


def load_tree(data: bytes, width: int) -> list[TreeEntry]:
    """The rows of a tree whose object names have ``width`` bytes. Raises ``ThetaError``."""
    entries, position = [], 0
    while position < len(data):
        end = data.find(b"\0", position)
        mode, space, name = data[position:end].partition(b" ")
        position = end + 1 + width
        if end < 0 or not space or position > len(data):
            raise ThetaError("a broken tree: run 'git fsck'")
        entries.append(TreeEntry(mode, name, data[end + 1 : position].hex()))
    return entries


def dump_tree(entries: Iterable[TreeEntry]) -> bytes:
    """A tree in git's order, in which a directory's name ends with a slash."""
    ordered = sorted(entries, key=lambda entry: entry.name + b"/" if entry.mode == TREE else entry.name)
    return b"".join(entry.mode + b" " + entry.name + b"\0" + bytes.fromhex(entry.oid) for entry in ordered)


def headers(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keyword and value of each header of a commit or tag; the lines that continue a value are part of it."""
    key, value = b"", b""
    for line in data.partition(b"\n\n")[0].removesuffix(b"\n").split(b"\n"):
        if line.startswith(b" "):
            value += b"\n" + line
            continue
        if key:
            yield key, value
        key, _, value = line.partition(b" ")
    yield key, value


def with_headers(data: bytes, rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The object with other headers, without a signature, which would be wrong now."""
    _, separator, message = data.partition(b"\n\n")
    if data.startswith(b"object "):  # a tag has its signature at the end of its message
        starts = [at + 1 for armour in _ARMOUR if (at := (b"\n" + message).find(armour)) >= 0]
        message = message[: min(starts) - 1] if starts else message
    kept = (key + b" " + value for key, value in rows if key not in _SIGNATURES)
    return b"\n".join(kept) + (separator or b"\n") + message


class PackWriter:
    """New objects, which reach git's object database in packs: one process for many thousands."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self.algorithm = git.text("rev-parse", "--show-object-format")
        self._known: set[str] = set()
        self._body = bytearray()
        self._count = 0

    def add(self, kind: str, data: bytes) -> str:
        """The name of an object, which git has after the next ``flush``."""
        oid = new_hash(self.algorithm, f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
        if oid not in self._known:
            self._known.add(oid)
            self._body += _object_header(_KINDS[kind], len(data)) + zlib.compress(data)
            self._count += 1
            if len(self._body) > _FULL:
                self.flush()
        return oid

    def flush(self) -> None:
        """Hand over what has come together. Raises ``ThetaError`` if git does not take it."""
        if not self._count:
            return
        pack = _HEADER.pack(b"PACK", 2, self._count) + bytes(self._body)
        pack += new_hash(self.algorithm, pack, usedforsecurity=False).digest()
        self._git.run("index-pack", "--stdin", "--fix-thin", stdin=pack)
        self._body.clear()
        self._count = 0


def _object_header(kind: int, size: int) -> bytes:
    """Kind and size as a pack has them: four bits of the size, then seven in each byte that follows."""
    byte, size = kind << 4 | size & 15, size >> 4
    header = bytearray()
    while size:
        header.append(byte | 128)
        byte, size = size & 127, size >> 7
    header.append(byte)
    return bytes(header)

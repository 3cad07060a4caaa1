"""The manifest: what a commit holds in place of a checkpoint, as canonical text.

Identity comes first: format, size, layout, parameters and chunks, under one digest that names this version of the
file on every machine. Storage comes last: the objects whose names do not already follow from the identity. Every
manifest has exactly one valid spelling; ``docs/format.md`` is the specification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from .errors import ConflictMarkers, FormatError, ManifestError
from .tensor import MAX_BYTES, Tensor

MAGIC = b"git-theta-btm manifest "  # of any version: one that a later program wrote must not pass for a file
FIRST_LINE = (
    "git-theta-btm manifest 1: a model, stored tensor by tensor; to get the file itself: "
    "pip install git-theta-btm && git theta install && git theta pull"
)
MAX_TEXT = 256 << 20  # a million parameters take about 150 MB
PACKED = 16 << 10  # blobs of at most this many bytes share a pack: an LFS server's cost is per object, not per byte

_HEX = re.compile("[0-9a-f]{64}")
_BARE = re.compile(r"[!#-\[\]-~]+")  # printable ASCII but for the quote and the backslash
_DIGITS = re.compile("([0-9]+)")
_OTHER = re.compile(re.escape(MAGIC) + b"(?!1:)[0-9]+:")
_CONFLICT = re.compile(rb"^(?:<{7} |={7}$|>{7} |\|{7} )", re.MULTILINE)


class Digest(str):
    """A SHA-256 in lower-case hexadecimal."""

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not _HEX.fullmatch(text):
            raise ManifestError(f"not a SHA-256: {text[:80]!r}")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        return str.__new__(cls, sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Blob:
    """A run of bytes by its digest and its length in bytes: what is stored once, however often it is used."""

    digest: Digest
    size: int

    @property
    def packed(self) -> bool:
        """Whether it lives in a pack; a larger blob is an object of its own."""
        return self.size <= PACKED


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded of one parameter. A ``view`` has its bytes inside a chunk instead of a blob of its own."""

    name: str
    tensor: Tensor
    digest: Digest
    view: bool = False

    @property
    def blob(self) -> Blob:
        return Blob(self.digest, self.tensor.nbytes)

    def __str__(self) -> str:
        return f"{'view' if self.view else 'param'} {spell(self.name)} {self.tensor} {self.digest}"


@dataclass(frozen=True, slots=True, order=True)
class Stored:
    """One object that the manifest needs and whose name does not follow from a digest above it.

    A ``pack`` holds small blobs, a ``raw`` object is a blob that others are based on; any other ``kind`` is an update
    whose ``rest`` is the digest of the blob that it yields and those of its bases.
    """

    kind: str
    oid: Digest
    size: int
    rest: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.rest) != self.encoded or not all(map(_HEX.fullmatch, self.rest)):
            raise ManifestError(f"an object line of kind {self.kind[:40]!r} with the wrong words")

    @property
    def encoded(self) -> bool:
        return self.kind not in ("pack", "raw")

    @property
    def packed(self) -> bool:
        """Whether it lives in a pack itself, as every small blob does."""
        return self.encoded and self.size <= PACKED

    def __str__(self) -> str:
        return " ".join(("object", self.kind, self.oid, str(self.size), *self.rest))


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of one file: ``entries`` in natural order of their names, ``chunks`` in file order."""

    format: str
    size: int
    layout: Blob
    entries: tuple[Entry, ...]
    chunks: tuple[Blob, ...] = ()
    objects: tuple[Stored, ...] = ()
    digest: Digest = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", Digest.of(self._identity().encode()))

    def _identity(self) -> str:
        lines = [f"format {self.format}", f"size {self.size}", f"layout {self.layout.size} {self.layout.digest}"]
        lines += map(str, self.entries)
        lines += (f"chunk {chunk.size} {chunk.digest}" for chunk in self.chunks)
        return "\n".join(lines) + "\n"

    def dumps(self) -> bytes:
        """The canonical text. ``loads(dumps(m)) == m``."""
        storage = "".join(f"{stored}\n" for stored in self.objects)
        return f"{FIRST_LINE}\ndigest {self.digest}\n{self._identity()}{storage}".encode()

    def blobs(self) -> Iterator[Blob]:
        """Every blob the file is made of, each once."""
        blobs = (self.layout, *(entry.blob for entry in self.entries if not entry.view), *self.chunks)
        yield from dict.fromkeys(blob for blob in blobs if blob.size)

    def needs(self) -> Iterator[Blob]:
        """Every object that must be in the store to rebuild the file, by object id and size."""
        encoded = {stored.rest[0] for stored in self.objects if stored.encoded}
        yield from (Blob(stored.oid, stored.size) for stored in self.objects if not stored.packed)
        yield from (blob for blob in self.blobs() if not blob.packed and blob.digest not in encoded)


def order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key of natural order: runs of digits compare as numbers, so ``h.2`` stands before ``h.10``."""
    parts = _DIGITS.split(name)
    key = [(0, part) for part in parts]
    for index in range(1, len(parts), 2):
        digits = parts[index].lstrip("0")
        key[index] = (len(digits), digits)
    return key, name


def spell(name: str) -> str:
    """A name as one word: bare if it is plain printable ASCII, else as a JSON string in ASCII, so that no name can
    forge a line, reverse a terminal's text or differ between two readers' Unicode tables."""
    if _BARE.fullmatch(name):
        return name
    return json.dumps(name).replace(" ", "\\u0020").replace("\x7f", "\\u007f")


def is_manifest(head: bytes) -> bool:
    """Whether bytes that start with ``head`` claim to be a manifest."""
    return head.startswith(MAGIC)


def is_later(text: bytes) -> bool:
    """Whether ``text`` claims to be a manifest of a version that only a later program reads."""
    return _OTHER.match(text) is not None


def loads(text: bytes) -> Manifest:
    """The manifest that ``text`` spells. Raises ``ManifestError``, and ``ConflictMarkers`` if a merge left some."""
    if _CONFLICT.search(text):
        raise ConflictMarkers("conflict markers in a manifest: a text merge went through it")
    if text.startswith(FIRST_LINE.encode() + b"\r\n"):
        raise ManifestError("git has translated the ends of a manifest's lines: 'git theta doctor' says why")
    if is_later(text):
        raise ManifestError("a manifest that needs a newer git-theta-btm: pip install --upgrade git-theta-btm")
    try:
        lines = text.decode().split("\n")
        if lines[0] != FIRST_LINE or lines.pop() != "":
            raise ManifestError("not a manifest of version 1, or cut short")
        manifest = _assemble([line.split(" ") for line in lines[1:]])
    except FormatError as error:
        raise ManifestError(f"broken manifest: {error}") from None
    except (ValueError, IndexError, TypeError, RecursionError):
        raise ManifestError("broken manifest: a line is missing, or is not what its first word says") from None
    if manifest.dumps() != text:
        raise ManifestError("broken manifest: its lines do not agree with its digest, or are not in canonical form")
    return manifest


def _assemble(lines: list[list[str]]) -> Manifest:
    (_, _digest), (_, format_name), (_, size), (_, layout_size, layout) = lines[:4]
    words = iter(lines[4:])
    rows: dict[str, list[list[str]]] = {"param": [], "view": [], "chunk": [], "object": []}
    for line in words:
        if line[0] not in rows:
            raise ManifestError(f"unknown line {line[0][:40]!r}: it may need a newer git-theta-btm")
        rows["param" if line[0] == "view" else line[0]].append(line)
    entries = tuple(_entry(*line) for line in rows["param"])
    names = [order(entry.name) for entry in entries]
    if any(left >= right for left, right in zip(names, names[1:], strict=False)):
        raise ManifestError("parameters out of order, or one twice")
    objects = tuple(_stored(*line) for line in rows["object"])
    if any(left >= right for left, right in zip(objects, objects[1:], strict=False)):
        raise ManifestError("objects out of order, or one twice")
    return Manifest(
        format=_word(format_name),
        size=_size(size),
        layout=Blob(Digest(layout), _size(layout_size)),
        entries=entries,
        chunks=tuple(Blob(Digest(digest), _size(size)) for _, size, digest in rows["chunk"]),
        objects=objects,
    )


def _entry(keyword: str, name: str, tensor: str, digest: str) -> Entry:
    return Entry(json.loads(name) if name[0] == '"' else name, Tensor.parse(tensor), Digest(digest), keyword == "view")


def _stored(_: str, kind: str, oid: str, size: str, *rest: str) -> Stored:
    return Stored(_word(kind), Digest(oid), _size(size), tuple(map(_word, rest)))


def _word(text: str) -> str:
    if not _BARE.fullmatch(text):
        raise ManifestError(f"not a plain word: {text[:40]!r}")
    return text


def _size(text: str) -> int:
    if len(text) > 19 or not text.isdecimal() or int(text) > MAX_BYTES:
        raise ManifestError(f"not a size: {text[:40]!r}")
    return int(text)

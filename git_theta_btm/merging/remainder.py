"""The remainder: what of a model's file is in none of its tensors, such as metadata, counters and names.

What a program writes anew with every file says nothing, and is left out: the checksums of zip members, the identifier
that torch derives from them, and the addresses by which its old format names storages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256

from .. import formats
from ..api import Checkpoint
from ..layout import Range
from ..manifest import Digest, Manifest
from ..readers.archive import members
from ..readers.checksums import checksums
from ..readers.pickled import walk
from ..repository import Repository
from ..source import Source
from .filing import Desk

_ARCHIVES = ("torch_zip", "npz")
_IDENTIFIER = "/.data/serialization_id"  # a member of PyTorch's
_CRC = 4  # bytes
_BLOCK = 4 << 20  # bytes to be read at a time
_TEXT = re.compile(rb"(?:X....|\x8c.)([0-9]+)", re.DOTALL)  # of digits alone, behind its length, in a pickle


class Remainders:
    """Compares what is beside the tensors of the versions of one file; what decides by digests is not read."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[Digest, str] = {}

    def same(self, one: Manifest, other: Manifest) -> bool:
        """Whether two versions differ in tensors at most. Raises ``ObjectError``."""
        if (one.layout, one.chunks) == (other.layout, other.chunks):
            return True
        if not one.entries or not other.entries:
            return one.digest == other.digest
        return one.format == other.format and self._digest(one) == self._digest(other)

    def alike(self, one: Manifest, other: Manifest) -> bool:
        """Whether they differ in nothing else that has a meaning: in a safetensors header order and space have none."""
        if one.format != "safetensors" or other.format != "safetensors":
            return self.same(one, other)
        return self.same(one, other) or self._opened(one).metadata == self._opened(other).metadata

    def _digest(self, manifest: Manifest) -> str:
        if manifest.digest not in self._known:
            self._known[manifest.digest] = digest(self._opened(manifest).file)
        return self._known[manifest.digest]

    def _opened(self, manifest: Manifest) -> Checkpoint:
        with Desk(self._repository) as desk:
            desk.gather([manifest])
        return Checkpoint(manifest, self._repository.store)


def digest(file: Source) -> str:
    """A digest of all that a save of the same things with other tensors would write again. Raises ``FormatError``."""
    name, tensors = formats.locate(file)
    if name == "torch_legacy":
        return sha256(_old_pickle(file)).hexdigest()
    left_out = [(tensor.offset, tensor.end) for tensor in tensors]
    if name in _ARCHIVES:
        left_out += _noise(file)
    found = sha256()
    for start, end in _between(left_out, file.size):
        for at in range(start, end, _BLOCK):
            found.update(file.read(at, min(_BLOCK, end - at)))
    return found.hexdigest()


def _noise(archive: Source) -> Iterator[Range]:
    """Where a zip archive has what follows from its other bytes."""
    for checksum in checksums(archive):
        yield from ((field, field + _CRC) for field in checksum.fields)
    for name, member in members(archive).items():
        if member and name.endswith(_IDENTIFIER):
            yield member.offset, member.offset + member.size


def _between(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """What no range covers of a file of this size."""
    position = 0
    for start, end in sorted(ranges):
        if start > position:
            yield position, start
        position = max(position, end)
    if size > position:
        yield position, size


def _old_pickle(file: Source) -> bytes:
    """The fourth pickle of an old file, with storages numbered as they are met."""
    at = 0
    for _ in range(3):
        at = walk(file, at).end
    saved = walk(file, at)
    keys = walk(file, saved.end).value
    known = {key.encode() for key in keys if isinstance(key, str)} if isinstance(keys, list) else set()
    numbers: dict[bytes, bytes] = {}

    def number(found: re.Match[bytes]) -> bytes:
        key = found[1]
        return numbers.setdefault(key, b"storage %d" % len(numbers)) if key in known else found[0]

    return _TEXT.sub(number, file.read(saved.start, saved.end - saved.start))

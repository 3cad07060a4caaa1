"""Opening: a checkpoint as a file on disk or in a commit, either as ``api.Checkpoint`` has it.

A file is not copied into a store: its manifest names the SHA-256 of each tensor's bytes, and the store behind it reads
ranges of the file itself. So whatever merges and compares stored models does the same to plain files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256

from .. import api, formats
from ..errors import FormatError, MissingObject, ThetaError, UsageError
from ..filters.verify import Verifier
from ..layout import Located
from ..manifest import Blob, Digest, Entry, Manifest, loads, order
from ..merging.heads import commit_of
from ..parallel import map_threads
from ..readers.archive import members
from ..repository import Repository, read_stub
from ..source import BLOCK, FileSource, Part, Source
from ..store import Forgetful, Writer
from . import adapting
from .adapted import Adapted
from .models import ModelAt
from .places import WEIGHTS

_ARCHIVES = ("npz", "torch_zip")
_NOTHING = Blob(Digest.of(b""), 0)


class Ranges:
    """An ``ObjectStore`` whose objects are ranges of an open file."""

    def __init__(self, objects: Mapping[Digest, Part]) -> None:
        self._objects = objects

    def size(self, oid: Digest) -> int | None:
        return self._objects[oid].size if oid in self._objects else None

    @contextmanager
    def open(self, oid: Digest) -> Iterator[Source]:
        """Read an object. Raises ``MissingObject``."""
        if oid not in self._objects:
            raise MissingObject(f"object {oid} is not in the file")
        yield self._objects[oid]

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        raise ThetaError("a file that is read takes no objects")
        yield  # what makes it a generator, as the protocol has it


@dataclass(frozen=True, slots=True)
class Opened:
    """A model: ``word`` is what the user called it, ``file`` its bytes. ``state`` is None for one in a commit."""

    word: str
    checkpoint: api.Checkpoint
    file: Source
    state: os.stat_result | None = None

    def verify(self) -> None:
        """Compare a stored model's objects with their digests: those of a file were just taken.

        Raises ``ObjectError`` if one is missing or corrupt.
        """
        if self.state is not None:
            return
        sizes = {blob.digest: blob.size for blob in self.checkpoint.manifest.blobs()}
        verifier = Verifier(self.checkpoint.blobs, Forgetful())
        map_threads(lambda oid: verifier.verify(oid, sizes.get(oid)), self.checkpoint.blobs.closure(sizes))

    def check_unchanged(self) -> None:
        """Raise ``ThetaError`` if the file was written to since it was opened."""
        if self.state is None or not isinstance(self.file, FileSource):
            return
        now = os.fstat(self.file.fd)
        if (now.st_size, now.st_mtime_ns) != (self.state.st_size, self.state.st_mtime_ns):
            raise ThetaError(f"{self.word} changed while it was read: nothing was written")


def open_model(word: str, stack: ExitStack, *, adapted: bool = False) -> Opened:
    """The model in a file, in ``REV:PATH``, or a commit's ``model/model.safetensors``. The stack closes it.

    A commit's adapter that is not applied yet is in its model if ``adapted``, and else an error. Raises ``ThetaError``
    for a file without tensors that can be located, a commit that does not exist, or one without that path, and
    ``UsageError`` if the word names neither a file nor a commit.
    """
    if os.path.isfile(word):
        stub = read_stub(word)
        return _of_file(word, stack) if stub is None else _stored(word, api.Checkpoint(loads(stub), Repository().store))
    revision, colon, path = word.partition(":")
    try:
        repository = Repository()
    except ThetaError:
        raise UsageError(f"there is no file {word!r}, and no repository here to look for a commit") from None
    try:
        commit_of(repository.here, revision or "HEAD")
    except ThetaError:
        if colon:
            raise
        raise UsageError(f"there is neither a file nor a commit {word!r}") from None
    checkpoint = api.open(path if colon else WEIGHTS, revision or "HEAD", repository.root or ".")
    return _stored(word, checkpoint if colon else _expert(repository, word, checkpoint, adapted=adapted))


def _expert(repository: Repository, revision: str, checkpoint: api.Checkpoint, *, adapted: bool) -> api.Checkpoint:
    """The model of a commit with its adapter in it. Raises ``ThetaError`` if there is one, unless ``adapted``."""
    if not adapting.beside(repository.git, revision):
        return checkpoint
    model = ModelAt(repository, revision)
    if model.adapter is None:
        return checkpoint
    if not adapted:
        raise adapting.refusal(revision, model.adapter)
    return Adapted(checkpoint.manifest, repository.store, model.adapter.recipes(model.entries, repository.store))


def _stored(word: str, checkpoint: api.Checkpoint) -> Opened:
    return Opened(word, checkpoint, checkpoint.file)


def _of_file(path: str, stack: ExitStack) -> Opened:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    state, source = os.fstat(fd), FileSource(fd)
    name, located = formats.locate(source)
    if name == formats.OPAQUE:
        raise ThetaError(
            f"{path} is no checkpoint whose tensors can be found: save it as safetensors, or by torch.save"
        )
    if name in _ARCHIVES and any(member is None for member in members(source).values()):
        raise ThetaError(f"{path} is compressed: numpy.savez writes one that is not")
    try:
        digests = dict(zip(located, map_threads(lambda item: _digest(source, item), located), strict=True))
    except FormatError as error:
        raise ThetaError(f"{path}: {error}") from None
    objects = {digest: Part(source, item.offset, item.tensor.nbytes) for item, digest in digests.items()}
    entries = (Entry(item.name, item.tensor, digest) for item, digest in digests.items())
    manifest = Manifest(name, source.size, _NOTHING, tuple(sorted(entries, key=lambda entry: order(entry.name))))
    return Opened(path, api.Checkpoint(manifest, Ranges(objects)), source, state)


def _digest(source: Source, item: Located) -> Digest:
    digest = sha256()
    buffer = memoryview(bytearray(min(BLOCK, item.tensor.nbytes)))
    for offset in range(item.offset, item.end, BLOCK):
        block = buffer[: min(BLOCK, item.end - offset)]
        source.readinto(offset, block)
        digest.update(block)
    return Digest(digest.hexdigest())

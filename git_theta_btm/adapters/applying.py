"""Applying: recipes become new values in a file, and objects that cost no more than what the values are made of.

Each new value is offered to the store as what it was made from, so that the next ``git add`` of the file stores the
factors and not the product. What is not worth it is left to the filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from .. import formats, pack
from ..blobs import Blobs
from ..errors import ThetaError
from ..filters.encode import Candidate, offer
from ..filters.places import Places
from ..filters.verify import Verifier
from ..manifest import Blob, Digest, Entry, Manifest, Stored
from ..parallel import keep_freed_memory, map_threads
from ..rewrite import rewrite
from ..source import BLOCK, FileSource, Part, Source
from ..store import Memory, ObjectStore, get, put
from .edits import Operand, Recipe

_WORK = 8  # decodings that a checkout may have to stack for one parameter
_WORTH = 0.9  # of a parameter's size: factors that take more save nothing

Progress = Callable[[int, int], None]


class Bench:
    """Where the parameters of one version of a file are taken from, and where new ones are stored."""

    def __init__(self, manifest: Manifest, store: ObjectStore, memory: Memory) -> None:
        self._store, self._memory = store, memory
        self._entries = {entry.name: entry for entry in manifest.entries}
        self._manifest, self._blobs = manifest, Blobs(manifest.objects, store)
        self._places = Places(store, memory, [manifest])
        keep_freed_memory()

    def apply(self, recipes: Mapping[str, Recipe], old: FileSource, out: int) -> None:
        """Write the file ``old``, which is the manifest's, with new values for some parameters to ``out``.

        Raises ``MissingObject`` or ``CorruptObject`` if an old value cannot be had.
        """
        owned = [self._entries[name].digest for name in recipes if not self._entries[name].view]
        self._verify(owned)
        located = {item.name: item for item in formats.locate(old)[1]}
        new: dict[str, Source] = {}
        for name, recipe in recipes.items():
            entry, item = self._entries[name], located.get(name)
            if item is None or item.tensor != entry.tensor:
                raise ThetaError(f"{name} is not in the file as it is committed")
            new[name] = recipe.value(self._view(entry, old, item.offset) if entry.view else self._base(entry))
        rewrite(old, new, out)

    def offer(self, recipes: Mapping[str, Recipe], out: int, progress: Progress) -> int:
        """Store the new values that stand in the file ``out``; returns how many bytes of factors they are made of."""
        wanted = {name: recipe for name, recipe in recipes.items() if self._pays(self._entries[name], recipe)}
        operands = {item.name: item for recipe in wanted.values() for item in recipe.operands}
        factors = self._store_factors(operands.values())
        digests = [*(self._entries[name].digest for name in wanted), *(blob.digest for blob in factors.values())]
        lines = frozenset[Stored]().union(*(self._places.find(digest) or () for digest in digests))
        blobs = Blobs(lines, self._store)
        source = FileSource(out)
        located = {item.name: item for item in formats.locate(source)[1]}
        for count, (name, recipe) in enumerate(wanted.items()):
            progress(count, len(wanted))
            item = located[name]
            bases = (self._entries[name].blob, *(factors[operand.name] for operand in recipe.operands))
            candidate = Candidate(recipe.kind, bases, recipe.parameters)
            data = source.read(item.offset, item.tensor.nbytes)
            offer(data, item.tensor, candidate, blobs, (self._store, self._memory))
        return sum(blob.size for blob in set(factors.values()))

    # -- old values --------------------------------------------------------------------------------------------------

    def _verify(self, digests: list[Digest]) -> None:
        """Check old values and all they are stored in terms of, and make the memory know where they are: the filter
        recognises a new value only if it can find what it is based on."""
        verifier = Verifier(self._blobs, self._memory)
        map_threads(verifier.verify, self._blobs.closure(digests))
        for stored in self._manifest.objects:
            if stored.kind == "pack":
                members = pack.loads(get(self._store, stored.oid, stored.size))
                sound = (digest for digest, data in members.items() if Digest.of(data) == digest)
                self._memory.learn_stored((digest, stored) for digest in sound)

    def _base(self, entry: Entry) -> Source:
        return _Reopened(self._blobs, entry.blob)

    def _view(self, entry: Entry, old: FileSource, offset: int) -> Source:
        """A parameter that has no blob of its own, from the file itself."""
        part = Part(old, offset, entry.tensor.nbytes)
        digest = sha256()
        for at in range(0, part.size, BLOCK):
            digest.update(part.read(at, min(BLOCK, part.size - at)))
        if digest.hexdigest() != entry.digest:
            raise ThetaError(f"{entry.name} is not in the file as it is committed")
        return part

    # -- new values --------------------------------------------------------------------------------------------------

    def _pays(self, entry: Entry, recipe: Recipe) -> bool:
        """Whether a new value is best stored as its recipe. A small one goes into a pack as it is."""
        if entry.view or entry.blob.packed or not recipe.kind:
            return False
        cost = sum(item.source.size for item in recipe.operands)
        return cost < _WORTH * entry.blob.size and self._blobs.work(entry.digest) < _WORK

    def _store_factors(self, operands: Iterable[Operand]) -> dict[str, Blob]:
        """Put tensors into the store, small ones together into packs, unless they are there already."""
        blobs: dict[str, Blob] = {}
        small: dict[Digest, bytes] = {}
        for item in operands:
            data = item.data()
            blob = blobs[item.name] = Blob(Digest.of(data), len(data))
            if self._places.find(blob.digest) is None and blob.packed:
                small[blob.digest] = data
            elif self._places.find(blob.digest) is None:
                put(self._store, data)
        for members, data in pack.dumps(small):
            stored = Stored("pack", put(self._store, data), len(data))
            self._memory.learn_stored((digest, stored) for digest in members)
            for digest in members:
                self._places.made(digest, stored)
        return blobs


class _Reopened:
    """A blob that is opened for each read, so that a file with thousands of parameters needs few descriptors."""

    def __init__(self, blobs: Blobs, blob: Blob) -> None:
        self._blobs, self._blob = blobs, blob
        self.size = blob.size

    def read(self, offset: int, size: int) -> bytes:
        with self._blobs.open(self._blob.digest) as source:
            return source.read(offset, size)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

"""PyTorch files before 1.6 (and ``_use_new_zipfile_serialization=False``): five pickles, then the storages.

Specification: PyTorch, ``_legacy_save`` and ``_legacy_load`` in torch/serialization.py.
"""

from __future__ import annotations

from ..errors import FormatError
from ..readers.pickled import Pickle, walk
from ..readers.symbols import Pairs, Value
from ..readers.torch_tree import Extent, find
from ..readers.torch_types import Storage, is_storage, storage_of
from ..source import Source, check_range
from . import Located

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def locate(source: Source) -> list[Located]:
    """All tensors that the fourth pickle names, in its order. Raises ``FormatError``."""
    magic = walk(source)
    protocol = walk(source, magic.end)
    system = walk(source, protocol.end)
    if magic.value != MAGIC_NUMBER or protocol.value != PROTOCOL or not _little_endian(system.value):
        raise FormatError("not a little-endian file of PyTorch")
    saved = walk(source, system.end)
    keys = walk(source, saved.end)
    return find(saved, _extents(source, keys, _storages(saved)))


def _little_endian(system: Value) -> bool:
    if not isinstance(system, Pairs):
        return False
    return any(key == "little_endian" and value is True for key, value in zip(system[::2], system[1::2], strict=True))


def _storages(saved: Pickle) -> dict[str, Storage]:
    """The storages by key, each as it was first referred to: that is how its length was counted."""
    storages: dict[str, Storage] = {}
    for reference in filter(is_storage, saved.persistent):
        storage = storage_of(reference)
        if storage is None:
            raise FormatError("a storage of elements of unknown size: what follows it cannot be found")
        storages.setdefault(storage.key, storage)
    return storages


def _extents(source: Source, keys: Pickle, storages: dict[str, Storage]) -> dict[str, Extent | None]:
    """Where the bytes of each storage are: they follow ``keys`` in its order, each after its number of elements."""
    if not isinstance(keys.value, list):
        raise FormatError("storage keys that are no list")
    extents: dict[str, Extent | None] = {}
    offset = keys.end
    for key in keys.value:
        if not isinstance(key, str) or key not in storages or key in extents:
            raise FormatError("a storage key that stands for no storage, or stands twice")
        count = int.from_bytes(source.read(offset, 8), "little")
        if count * storages[key].dtype.size != storages[key].size:
            raise FormatError(f"storage {key[:100]!r} is of another length than its tensors say")
        extents[key] = (offset + 8, storages[key].size)
        offset += 8 + storages[key].size
    check_range(0, offset, source.size)
    return extents

"""PyTorch files since 1.6: a zip archive of a pickle and one member per storage.

Specification: PyTorch, ``_save`` and ``_load`` in torch/serialization.py; caffe2/serialize/inline_container.h.
"""

from __future__ import annotations

from ..errors import FormatError
from ..readers.archive import Member, members
from ..readers.pickled import walk
from ..readers.torch_tree import find
from ..source import Source
from . import Located


def locate(source: Source) -> list[Located]:
    """All tensors that ``<root>/data.pkl`` names, in its order. Raises ``FormatError``."""
    archive = members(source)
    pickle = _pickle(archive)
    root = pickle.name.removesuffix("data.pkl")
    _check_byteorder(source, archive, root + "byteorder")
    data = root + "data/"
    extents = {
        name.removeprefix(data): (member.offset, member.size) if member else None
        for name, member in archive.items()
        if name.startswith(data)
    }
    return find(walk(source, pickle.offset, pickle.offset + pickle.size), extents)


def _pickle(archive: dict[str, Member | None]) -> Member:
    """The one ``data.pkl`` in a folder at the top of the archive."""
    found = [member for name, member in archive.items() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1 or found[0] is None:
        raise FormatError(f"a zip archive with {len(found)} pickles of PyTorch, or a compressed one")
    return found[0]


def _check_byteorder(source: Source, archive: dict[str, Member | None], name: str) -> None:
    if name not in archive:
        return  # files older than PyTorch 2.1 do not say, and are little-endian
    member = archive[name]
    if member is None or source.read(member.offset, min(member.size, 16)) != b"little":
        raise FormatError("not a little-endian file of PyTorch")

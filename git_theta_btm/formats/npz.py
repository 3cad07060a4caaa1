"""NumPy's ``.npz``: a zip archive of ``.npy`` files. Only uncompressed members (``numpy.savez``) can be located.

Specification: ``numpy.lib.npyio`` and ``numpy.lib.format``.
"""

from __future__ import annotations

from ..errors import FormatError
from ..readers.archive import Member, members
from ..readers.numpy_header import read
from ..source import Source
from . import Located

SUFFIX = ".npy"


def locate(source: Source) -> list[Located]:
    """The arrays of the archive under their names without ``.npy``. Raises ``FormatError`` if there is none."""
    found = [
        located
        for name, member in members(source).items()
        if member and name.endswith(SUFFIX)
        for located in _array(source, member)
    ]
    if not found:
        raise FormatError("a zip archive without uncompressed arrays")
    return found


def _array(source: Source, member: Member) -> list[Located]:
    """The member's array, or nothing if its elements are such that no tensor has."""
    array = read(source, member.offset, member.offset + member.size)
    if array.tensor is None:
        return []
    return [Located(member.name.removesuffix(SUFFIX), array.tensor, array.offset)]

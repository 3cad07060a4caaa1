"""NumPy's ``.npy``: one array, which is called ``array`` here because the file gives it no name.

Specification: NEP 1 and ``numpy.lib.format``.
"""

from __future__ import annotations

from ..errors import FormatError
from ..readers.numpy_header import read
from ..source import Source
from . import Located

NAME = "array"


def locate(source: Source) -> list[Located]:
    """The file's one array. Raises ``FormatError``, also for elements that are objects, text or big-endian."""
    array = read(source, 0, source.size)
    if array.tensor is None:
        raise FormatError("an array of elements that no tensor has")
    return [Located(NAME, array.tensor, array.offset)]

"""Random numbers by name: each is a function of a key and its place, so no order, thread or machine has a say.

Philox-4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), whose stream NumPy keeps.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_EACH = 4  # numbers that one step of the counter gives


def key(*words: str) -> bytes:
    """16 bytes that stand for a sequence of words."""
    return sha256("\0".join(words).encode(errors="surrogateescape")).digest()[:16]


def uniform(key: bytes, start: int, count: int) -> npt.NDArray[np.float64]:
    """Numbers ``start`` to ``start + count`` of the stream of a key of 16 bytes: multiples of 2**-53 in [0, 1)."""
    import numpy as np

    words = np.frombuffer(key, "<u8")
    skipped = start % _EACH
    stream = np.random.Philox(key=words, counter=start // _EACH)
    raw = stream.random_raw(count + skipped)[skipped:]
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53

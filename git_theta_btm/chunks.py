"""Content-defined chunks: where to cut bytes that no format explains, so that an insertion moves few cuts.

A cut stands where a rolling hash of the ``WINDOW`` bytes before it is in the top 1/``SPACING`` of its values. The hash
is a polynomial of the window's eight little-endian 32-bit words, modulo 2**32. These numbers are part of the storage
format: other cuts would store the same bytes a second time, so they never change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN = 1 << 20  # bytes; where no cut is looked for after a cut. A server's cost per object is that of some 100 KiB
SPACING = 3 << 20  # bytes between cuts but for MIN and MAX, so a chunk has 4 MiB on average
MAX = 16 << 20  # bytes; random bytes go uncut for so long in one chunk of 150, constant bytes always
WINDOW = 32  # bytes

MULTIPLIER = 0x9E3779B1  # a prime next to 2**32 divided by the golden ratio
THRESHOLD = (1 << 32) - (1 << 32) // SPACING  # the top, because zeros hash to 0

_BLOCK = 1 << 18  # bytes hashed at a time: three arrays of so many fit the second-level cache


def chunks(source: Source, start: int, end: int) -> list[tuple[int, int]]:
    """Offsets and sizes, in bytes, of the chunks that together are the bytes from ``start`` to ``end``.

    Raises ``FormatError`` if the source has not that many bytes.
    """
    found = []
    if end - start > MIN:
        scanner = _Scanner(source)
        while end - start > MIN:
            cut = scanner.cut(start + MIN, min(start + MAX, end))
            found.append((start, cut - start))
            start = cut
    if end > start:
        found.append((start, end - start))
    return found


class _Scanner:
    """Looks for cuts, with the scratch memory for it."""

    def __init__(self, source: Source) -> None:
        import numpy as np  # 0.1 s, which files below MIN do not pay

        self._source, self._multiply = source, np.multiply
        self._raw = np.empty(_BLOCK + WINDOW, np.uint8)
        self._words = np.empty(self._raw.size // 4, "<u4")  # on any machine
        self._sums = np.empty_like(self._words)

    def cut(self, first: int, last: int) -> int:
        """The first cut at ``first`` or after it, ``last`` if there is none before."""
        for at in range(first, last, _BLOCK):
            count = min(_BLOCK, last - at)
            raw = self._raw[: count + WINDOW - 1]
            self._source.readinto(at - WINDOW, raw.data)
            cuts = [4 * index + lane for lane in range(4) if (index := self._lane(raw[lane:])) is not None]
            if cuts:
                return at + min(cuts)
        return last

    def _lane(self, raw: NDArray[np.uint8]) -> int | None:
        """The first window at every fourth byte of ``raw`` that ends in a cut, counted in words."""
        words, sums = self._words[: len(raw) // 4], self._sums[: len(raw) // 4]
        words.view("u1")[:] = raw[: 4 * len(words)]  # a copy, as arithmetic is slow on unaligned words
        for step in (1, 2, 4):  # sums of 2, 4 and 8 words: h2k[i] = hk[i] * m**k + hk[i + k]
            sums = sums[: len(words) - step]
            self._multiply(words[:-step], pow(MULTIPLIER, step, 1 << 32), out=sums)
            sums += words[step:]
            words, sums = sums, words
        hit = words >= THRESHOLD
        return int(hit.argmax()) if hit.any() else None

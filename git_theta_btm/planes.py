"""Byte planes: unsigned integers as the bytes of their first place, then of their second, and so on, each compressed
by itself, or not at all where nothing is gained.

Weights have few exponents and random mantissas: apart, the first shrink and the second cost nothing (ZipNN,
arXiv:2411.05239). The compressor is tuned to be little more than Huffman coding, since there are no matches to find.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard

from .errors import CorruptObject

Values: TypeAlias = npt.NDArray[np.unsignedinteger]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Places: TypeAlias = npt.NDArray[np.intp]
Squeezed: TypeAlias = tuple[int, bytes | memoryview]

TYPES: dict[int, np.dtype[np.unsignedinteger]] = {
    1: np.dtype(np.uint8),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}
_RAW, _ZSTD, _ZERO, _SPARSE = 0, 1, 2, 3
_PAYS = 0.97  # of its size: a plane that would not shrink further is kept as it is, and costs nothing to read
_SAMPLE = 8192  # bytes of a plane that tell its entropy to 0.03 bits
_MODE_SHIFT = 30
_SCATTERED = 0.25  # share of non-zero bytes below which whole bits for the zeros waste a fifth of a bit and more
_RARE = 0.02  # share of non-zero bytes from which on NumPy finds them in half the time among an eighth more of ones


def compress(values: Values, block: int = 0) -> bytes:
    """The planes of ``values``, lowest first; empty if every value is zero. ``block`` is after how many bytes the code
    is fitted anew, 0 for whenever zstd likes: values that are sorted by what they may be gain from shorter blocks."""
    planes = [_plane(values, place) for place in range(values.itemsize)]
    squeezed = [_sparse(plane, block) or _squeeze(plane, block) for plane in planes]
    if all(mode == _ZERO for mode, _ in squeezed):
        return b""
    return _join(squeezed)


def expand(payload: bytes | memoryview, width: int, count: int) -> Values:
    """The inverse of ``compress``: ``count`` values of ``width`` bytes. Raises ``CorruptObject``."""
    if not payload:
        return np.zeros(count, TYPES[width])
    if len(payload) < 4 * width:
        raise CorruptObject("planes without their table")
    planes: list[Bytes | int] = []
    position, data = 4 * width, memoryview(payload)  # whose parts are no copies
    for word in struct.unpack_from(f"<{width}I", data):
        mode, length = word >> _MODE_SHIFT, word & ((1 << _MODE_SHIFT) - 1)
        planes.append(_expand(mode, data[position : position + length], count))
        position += length
    if position != len(data):
        raise CorruptObject("planes that do not fit their table")
    values = _woven(planes)
    if isinstance(values, int):
        return np.zeros(count, TYPES[width])
    return values if values.flags.writeable else values.copy()


def _woven(planes: Sequence[Bytes | int]) -> Values | int:
    """Values from their planes, 0 for one of zeros. By shifts of halves: writing every fourth byte takes half as long
    again, and every other one three times as long."""
    if len(planes) == 1:
        return planes[0]
    half = len(planes) // 2
    low, high = _woven(planes[:half]), _woven(planes[half:])
    wide = TYPES[len(planes)]
    if isinstance(high, int):
        return low if isinstance(low, int) else low.astype(wide)
    values = high.astype(wide)
    values <<= wide.type(8 * half)
    if not isinstance(low, int):
        values |= low
    return values


def _plane(values: Values, place: int) -> Bytes:
    if values.itemsize == 1:
        return values.view(np.uint8)
    return (values >> values.dtype.type(8 * place)).astype(np.uint8)


def _join(squeezed: list[Squeezed]) -> bytes:
    table = struct.pack(f"<{len(squeezed)}I", *(mode << _MODE_SHIFT | len(data) for mode, data in squeezed))
    return b"".join((table, *(data for _, data in squeezed)))


def _sparse(plane: Bytes, block: int) -> Squeezed | None:
    """A plane of few non-zero bytes as a map of where they are, a bit each, and those bytes: a Huffman code takes at
    least one bit for every zero, the map an eighth of one."""
    sample = plane[:: max(1, len(plane) // _SAMPLE)]
    if not 0 < np.count_nonzero(sample) < _SCATTERED * len(sample):
        return None
    present = plane != 0
    bytes_there = plane[np.flatnonzero(present)]
    parts = [_squeeze(np.packbits(present), block), _squeeze(bytes_there, block)]
    return _SPARSE, struct.pack("<I", len(bytes_there)) + _join(parts)


def _squeeze(plane: Bytes, block: int) -> Squeezed:
    if not plane.any():
        return _ZERO, b""
    if _entropy(plane[:: max(1, len(plane) // _SAMPLE)]) < 8 * _PAYS:
        data = _zstd(plane, block)
        if len(data) < len(plane) * _PAYS:
            return _ZSTD, data
    return _RAW, plane.data


def _entropy(sample: Bytes) -> float:
    """Bits per byte of an order-0 code."""
    counts = np.bincount(sample)
    shares = counts[counts > 0] / len(sample)
    return float(-(shares * np.log2(shares)).sum())


def _zstd(plane: Bytes, block: int) -> bytes:
    if not block:
        return _compressor().compress(plane.data)
    stream = _compressor().compressobj(size=len(plane))
    parts: list[bytes] = []
    for start in range(0, len(plane), block):
        parts += stream.compress(plane[start : start + block].data), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return b"".join((*parts, stream.flush()))


def _compressor() -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters(
        compression_level=1, strategy=zstandard.STRATEGY_FAST, hash_log=6, min_match=7, window_log=17
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _expand(mode: int, data: memoryview, count: int) -> Bytes | int:
    if mode == _ZERO and not data:
        return 0
    if mode == _RAW and len(data) == count:
        return np.frombuffer(data, np.uint8)
    if mode == _SPARSE:
        return _scatter(data, count)
    if mode != _ZSTD:
        raise CorruptObject("a plane of another length, or of an unknown kind")
    try:
        if zstandard.frame_content_size(data) != count:  # what a frame claims is allocated before it is read
            raise CorruptObject("a plane of another length")
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(data, max_output_size=count), np.uint8)
    except zstandard.ZstdError as error:
        raise CorruptObject(f"a plane that does not decompress: {error}") from None


def _scatter(data: memoryview, count: int) -> Bytes:
    """The inverse of ``_sparse``."""
    if len(data) < 12:
        raise CorruptObject("a sparse plane without its table")
    there, *words = struct.unpack_from("<3I", data)
    position = 12
    parts: list[Bytes | int] = []
    for word, size in zip(words, (-(-count // 8), there), strict=True):
        mode, length = word >> _MODE_SHIFT, word & ((1 << _MODE_SHIFT) - 1)
        if mode not in (_RAW, _ZSTD) or size > count:
            raise CorruptObject("a sparse plane of planes that it cannot have")
        parts.append(_expand(mode, data[position : position + length], size))
        position += length
    plane = np.unpackbits(np.asarray(parts[0]), count=count)
    places = _ones(plane, there)
    if len(places) != there or position != len(data):
        raise CorruptObject("a sparse plane that does not fit its map")
    plane[places] = parts[1]
    return plane


def _ones(bits: Bytes, expected: int) -> Places:
    """Where the ones are. Up to a tenth of ones NumPy looks for each by itself, and mispredicts a branch for most;
    above that it uses no branches."""
    if not _RARE * len(bits) < expected <= len(bits) // 10:
        return np.flatnonzero(bits.view(np.bool_))
    more = np.ones(len(bits) // 8, np.uint8)
    return np.flatnonzero(np.concatenate((bits, more)).view(np.bool_))[: -len(more)]

"""Byte planes: unsigned integers as the bytes of their first place, then of their second, and so on, each compressed
by itself, or not at all where nothing is gained.

Weights have few exponents and random mantissas: apart, the first shrink and the second cost nothing (ZipNN,
arXiv:2411.05239). The compressor is tuned to be little more than Huffman coding, since there are no matches to find.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard

from .errors import CorruptObject

Values: TypeAlias = npt.NDArray[np.unsignedinteger]
Bytes: TypeAlias = npt.NDArray[np.uint8]

TYPES: dict[int, np.dtype[np.unsignedinteger]] = {
    1: np.dtype(np.uint8),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}
_RAW, _ZSTD, _ZERO = 0, 1, 2
_PAYS = 0.97  # of its size: a plane that would not shrink further is kept as it is, and costs nothing to read
_SAMPLE = 8192  # bytes of a plane that tell its entropy to 0.03 bits
_MODE_SHIFT = 30


def compress(values: Values) -> bytes:
    """The planes of ``values``, lowest first; empty if every value is zero."""
    planes = [_plane(values, place) for place in range(values.itemsize)]
    squeezed = [_squeeze(plane) for plane in planes]
    if all(mode == _ZERO for mode, _ in squeezed):
        return b""
    table = struct.pack(f"<{len(squeezed)}I", *(mode << _MODE_SHIFT | len(data) for mode, data in squeezed))
    return b"".join((table, *(data for _, data in squeezed)))


def expand(payload: bytes | memoryview, width: int, count: int) -> Values:
    """The inverse of ``compress``: ``count`` values of ``width`` bytes. Raises ``CorruptObject``."""
    if not payload:
        return np.zeros(count, TYPES[width])
    if len(payload) < 4 * width:
        raise CorruptObject("planes without their table")
    values = np.empty(count, TYPES[width])
    planes = values.view(np.uint8).reshape(count, width)
    position = 4 * width
    for place, word in enumerate(struct.unpack_from(f"<{width}I", payload)):
        mode, length = word >> _MODE_SHIFT, word & ((1 << _MODE_SHIFT) - 1)
        data = payload[position : position + length]
        position += length
        planes[:, place] = _expand(mode, data, count)
    if position != len(payload):
        raise CorruptObject("planes that do not fit their table")
    return values


def _plane(values: Values, place: int) -> Bytes:
    if values.itemsize == 1:
        return values.view(np.uint8)
    return (values >> values.dtype.type(8 * place)).astype(np.uint8)


def _squeeze(plane: Bytes) -> tuple[int, bytes | memoryview]:
    if not plane.any():
        return _ZERO, b""
    if _entropy(plane[:: max(1, len(plane) // _SAMPLE)]) < 8 * _PAYS:
        data = _compressor().compress(plane.data)
        if len(data) < len(plane) * _PAYS:
            return _ZSTD, data
    return _RAW, plane.data


def _entropy(sample: Bytes) -> float:
    """Bits per byte of an order-0 code."""
    counts = np.bincount(sample)
    shares = counts[counts > 0] / len(sample)
    return float(-(shares * np.log2(shares)).sum())


def _compressor() -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters(
        compression_level=1, strategy=zstandard.STRATEGY_FAST, hash_log=6, min_match=7, window_log=17
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _expand(mode: int, data: bytes | memoryview, count: int) -> Bytes | int:
    if mode == _ZERO and not data:
        return 0
    if mode == _RAW and len(data) == count:
        return np.frombuffer(data, np.uint8)
    if mode != _ZSTD:
        raise CorruptObject("a plane of another length, or of an unknown kind")
    try:
        if zstandard.frame_content_size(data) != count:  # what a frame claims is allocated before it is read
            raise CorruptObject("a plane of another length")
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(data, max_output_size=count), np.uint8)
    except zstandard.ZstdError as error:
        raise CorruptObject(f"a plane that does not decompress: {error}") from None

"""Files that may be compressed: read and written in pieces; one that ends too early is an error, never a short file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from ...errors import ThetaError

SUFFIXES = (".zst", ".gz")
_PIECE = 1 << 20  # bytes
_WINDOW = 1 << 31  # bytes: the largest that zstd --ultra --long=31 makes


def pieces(path: str) -> Iterator[bytes]:
    """The content of a file, decompressed as its name says. Raises ``ThetaError`` if it is broken or cut short."""
    try:
        if path.endswith(".zst"):
            yield from _unzstd(path)
        else:
            with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ThetaError(f"{path} is broken, or cut short: {error}") from None


def _unzstd(path: str) -> Iterator[bytes]:
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    frame = None
    with open(path, "rb") as file:
        while data := file.read(_PIECE // 8):
            while data:
                frame = frame or context.decompressobj()
                try:
                    yield frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise ThetaError(f"{path} is broken: {error}") from None
                data = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    if frame:
        raise ThetaError(f"{path} is cut short: its last frame has no end")


@contextmanager
def writing(path: str, name: str) -> Iterator[BinaryIO]:
    """A new file at ``path``, compressed as ``name`` says, and whole when the context ends.

    Raises ``FileExistsError`` if something is there.
    """
    with open(path, "xb") as file:
        if name.endswith(".zst"):
            import zstandard

            with zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False) as stream:
                yield cast(BinaryIO, stream)
        elif name.endswith(".gz"):
            # Without a name and a time of its own, so that the same lines give the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield file

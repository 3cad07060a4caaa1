"""Remaking: a safetensors file from nothing but its tensors.

Specification: https://github.com/huggingface/safetensors (README, "Format"). Bytes are written in the order in which
they stand in the file, so memory is bounded by the blocks that they come in, whatever the size of a tensor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeAlias

from .errors import FormatError, ThetaError
from .formats.safetensors import MAX_HEADER, TYPES
from .source import BLOCK, Source, write_all
from .tensor import Tensor

Blocks: TypeAlias = Callable[[], Iterable[bytes]]  # all bytes of a tensor, in order
Content: TypeAlias = Source | Blocks
Contents: TypeAlias = Mapping[str, tuple[Tensor, Content]]

_ALIGNMENT = 8  # bytes: the first tensor begins at a multiple of it, so that a mapped file can be used as it is


def write_safetensors(out: int, contents: Contents, metadata: Mapping[str, str]) -> int:
    """Write a file to the empty descriptor ``out``; returns its size.

    Tensors keep their order but for their element sizes, largest first, so that each is aligned. Raises
    ``FormatError`` for a tensor that safetensors cannot hold, and for content of another length than its tensor's.
    """
    ordered = dict(sorted(contents.items(), key=lambda item: -_alignment(item[1][0])))
    count = write_all(out, header({name: tensor for name, (tensor, _) in ordered.items()}, metadata))
    for name, (tensor, content) in ordered.items():
        written = 0
        for block in _blocks(content):
            written += write_all(out, block)
            if written > tensor.nbytes:
                break
        if written != tensor.nbytes:
            raise FormatError(f"{name[:100]!r} is not {tensor.nbytes} bytes long")
        count += written
    return count


def save_safetensors(path: str, contents: Contents, metadata: Mapping[str, str], mode: int) -> int:
    """Make a file with the permissions ``mode``, or replace the one of that name; returns its size in bytes.

    It appears whole or not at all, and nobody else can read it before that. Raises as above.
    """
    with new_file(path, 0o600) as out:
        count = write_safetensors(out, contents, metadata)
        os.fchmod(out, mode)
    return count


@contextmanager
def new_file(path: str, mode: int = 0o666) -> Iterator[int]:
    """A new file, open for reading and writing, which gets the name ``path`` if all goes well, and else goes away."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name[:200]}.{os.urandom(8).hex()}.theta")
    out = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        yield out
        os.fsync(out)
        os.replace(temporary, path)
    finally:
        os.close(out)
        with suppress(FileNotFoundError):  # it has been renamed
            os.unlink(temporary)


@contextmanager
def new_folder(path: str) -> Iterator[str]:
    """A folder to be filled, which gets the name ``path`` if all goes well, and else goes away.

    Raises ``ThetaError`` if there is something of that name, other than an empty folder.
    """
    path = os.path.abspath(path)
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise ThetaError(f"{path} exists already")
    parent, name = os.path.split(path)
    temporary = os.path.join(parent, f".{name[:200]}.{os.urandom(8).hex()}.theta")
    os.mkdir(temporary)
    try:
        yield temporary
        os.rename(temporary, path)  # also over an empty folder: rename(2)
    finally:
        if os.path.isdir(temporary):
            import shutil  # 15 ms that only a failure has to pay

            shutil.rmtree(temporary, ignore_errors=True)


def _alignment(tensor: Tensor) -> int:
    """The largest power of two that divides the size of an element."""
    return tensor.dtype.size & -tensor.dtype.size


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """What stands before the tensors, which follow in this order.

    Raises ``FormatError`` for a tensor that safetensors cannot hold, and for a header that would be too long.
    """
    fields: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, tensor in tensors.items():
        if tensor.dtype.name not in TYPES or tensor.strides is not None or name == "__metadata__":
            raise FormatError(f"safetensors cannot hold {name[:100]!r}, which is {tensor}")
        end = position + tensor.nbytes
        fields[name] = {"dtype": tensor.dtype.name, "shape": tensor.shape, "data_offsets": [position, end]}
        position = end
    try:
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"safetensors cannot hold the name {error.object[error.start : error.end]!r}") from None
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise FormatError(f"a safetensors header of {len(text)} bytes")
    return len(text).to_bytes(8, "little") + text


def _blocks(content: Content) -> Iterable[bytes]:
    if callable(content):
        return content()
    return (content.read(at, min(BLOCK, content.size - at)) for at in range(0, content.size, BLOCK))

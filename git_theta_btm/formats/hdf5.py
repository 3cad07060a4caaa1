"""HDF5: groups of groups and datasets; a dataset of numbers in one piece (contiguous layout) is a tensor.

Specification: HDF5 File Format Specification 3.0, https://support.hdfgroup.org/documentation/hdf5/latest/_s_p_e_c.html.
Datasets that are chunked, compressed, compact, external, virtual, big-endian or not of numbers are not located, nor are
the members of groups that keep their links in a fractal heap: their bytes are stored opaque, the others' as tensors.
Soft and external links say nothing about this file's bytes and are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import FormatError
from ..readers.hdf5_blocks import Blocks, Fields, Message
from ..readers.hdf5_types import element_type, shape
from ..source import Source
from ..tensor import Tensor
from . import Located

MAX_NAME = 4096  # bytes of a whole path
LINK_COST = 64  # bytes charged for a link beside its name, about what an entry of a group and an object header take

_DATASPACE, _DATATYPE, _LINK, _EXTERNAL, _LAYOUT, _SYMBOL_TABLE = 0x01, 0x03, 0x06, 0x07, 0x08, 0x11
_CONTIGUOUS = 1
_SOFT_LINK = 2  # cache type of a symbol table entry
_HARD = 0  # type of a link message

Dataset = tuple[Tensor, int]


def locate(source: Source) -> list[Located]:
    """All contiguous datasets of numbers that hard links lead to, by their paths without the first slash.

    A dataset has one name per link to it; the members of a group have the names on a shortest path to the group only,
    so that groups that contain each other end. Raises ``FormatError``.
    """
    blocks = Blocks(source)
    found: list[Located] = []
    known: dict[int, Dataset | None] = {}
    pending = [("", blocks.root)]
    for path, address in pending:  # grows while it is walked: breadth first
        if address not in known:
            messages = list(blocks.messages(address))
            known[address] = _dataset(blocks, messages)
            pending.extend((_join(blocks, path, name), target) for name, target in _links(blocks, messages))
        dataset = known[address]
        if dataset is not None:
            found.append(Located(path, *dataset))
    return found


def _join(blocks: Blocks, path: str, name: bytes) -> str:
    try:
        joined = f"{path}/{name.decode()}" if path else name.decode()
    except UnicodeDecodeError:
        raise FormatError("an HDF5 link whose name is not UTF-8") from None
    if len(joined) > MAX_NAME:
        raise FormatError(f"an HDF5 path of {len(joined)} characters")
    blocks.charge(len(joined) + LINK_COST)
    return joined


def _dataset(blocks: Blocks, messages: list[Message]) -> Dataset | None:
    bodies = {message.kind: None if message.shared else message.body for message in messages}
    space, datatype, layout = (bodies.get(kind) for kind in (_DATASPACE, _DATATYPE, _LAYOUT))
    if space is None or datatype is None or layout is None or _EXTERNAL in bodies:
        return None
    dtype, dims = element_type(Fields(datatype)), shape(Fields(space), blocks.length_size)
    if dtype is None or dims is None:
        return None
    tensor = Tensor(dtype, dims)
    offset = _offset(blocks, Fields(layout), tensor.nbytes)
    return None if offset is None else (tensor, offset)


def _offset(blocks: Blocks, layout: Fields, nbytes: int) -> int | None:
    """Where a contiguous dataset of ``nbytes`` starts; ``None`` for another layout and for bytes never written."""
    version = layout.uint(1)
    if version in (1, 2):
        _, kind, _ = layout.uint(1), layout.uint(1), layout.take(5)
    elif version in (3, 4, 5):
        kind = layout.uint(1)
    else:
        return None
    if kind != _CONTIGUOUS:
        return None
    address = blocks.address(layout)
    if not nbytes:
        return 0
    if version >= 3 and layout.uint(blocks.length_size) != nbytes:
        return None
    return address


def _links(blocks: Blocks, messages: list[Message]) -> Iterator[tuple[bytes, int]]:
    """Names and addresses of a group's members; nothing for an object that is no group."""
    for message in messages:
        if message.kind == _SYMBOL_TABLE:
            yield from _symbol_table(blocks, Fields(message.body))
        elif message.kind == _LINK:
            yield from _link(blocks, Fields(message.body))


def _link(blocks: Blocks, fields: Fields) -> Iterator[tuple[bytes, int]]:
    version, flags = fields.take(2)
    if version != 1:
        return
    kind = fields.uint(1) if flags & 0x08 else _HARD
    fields.take((8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0))  # order of creation, character set
    name = fields.take(fields.uint(1 << (flags & 3)))
    target = blocks.address(fields) if kind == _HARD else None
    if target is not None:
        yield name, target


def _symbol_table(blocks: Blocks, fields: Fields) -> Iterator[tuple[bytes, int]]:
    """The links of an old-style group: a B-tree of nodes of entries, whose names stand in a heap."""
    tree, heap = blocks.address(fields), blocks.address(fields)
    names = _heap(blocks, heap)
    for node in _leaves(blocks, tree):
        head = blocks.block(node, 8)
        if head.take(4) != b"SNOD":
            raise FormatError("not an HDF5 symbol table node")
        count = Fields(head.take(4)[2:]).uint(2)
        size = blocks.length_size + blocks.offset_size + 24
        entries = blocks.block(None if node is None else node + 8, count * size)
        for _ in range(count):
            name, target, cache = entries.uint(blocks.length_size), blocks.address(entries), entries.uint(4)
            entries.take(20)
            if target is not None and cache != _SOFT_LINK:
                yield _heap_name(names, name), target


def _heap(blocks: Blocks, address: int | None) -> bytes:
    head = blocks.block(address, 8 + 2 * blocks.length_size + blocks.offset_size)
    if head.take(8)[:5] != b"HEAP\0":
        raise FormatError("not an HDF5 local heap")
    size, _ = head.uint(blocks.length_size), head.uint(blocks.length_size)
    return blocks.raw(blocks.address(head), size)


def _heap_name(names: bytes, start: int) -> bytes:
    end = names.find(b"\0", start, start + MAX_NAME + 1)
    if end < 0:
        raise FormatError("an HDF5 link name without end")
    return names[start:end]


def _leaves(blocks: Blocks, root: int | None) -> Iterator[int | None]:
    """The children of the lowest level of a B-tree of version 1, which are symbol table nodes."""
    pending = [root]
    for address in pending:  # grows while it is walked; ``Blocks`` ends a tree that contains itself
        head = blocks.block(address, 8 + 2 * blocks.offset_size)
        if head.take(5) != b"TREE\0":
            raise FormatError("not an HDF5 B-tree of a group")
        level, count = head.uint(1), head.uint(2)
        start = None if address is None else address + 8 + 2 * blocks.offset_size
        body = blocks.block(start, count * (blocks.length_size + blocks.offset_size))
        for _ in range(count):
            body.take(blocks.length_size)  # the key
            child = blocks.address(body)
            if level:
                pending.append(child)
            else:
                yield child

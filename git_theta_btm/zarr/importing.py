"""Gather: the arrays of a zarr group become one safetensors file.

Specifications: zarr v3, and https://github.com/huggingface/safetensors. The group may come from anywhere: what it
says of itself is compared with what is there, and the file appears as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..errors import CorruptObject, FormatError, ThetaError
from ..manifest import order, spell
from ..remaking import header, new_file
from ..source import write_all
from ..tensor import DTYPES, Tensor
from .exporting import ATTRIBUTE, INDEX, NODE, TYPES, array_at, open_array, translated

_NAMES = {zarr: name for name, zarr in TYPES.items() if name != "C128"}  # safetensors has no such type
_MAX_NODE = 16 << 20  # bytes of one description
_PART = 64 << 20  # bytes that are read at a time


@dataclass(frozen=True, slots=True)
class Found:
    """An array of a group: the parameter that it is, where it lies, and its digest if it has kept one."""

    name: str
    tensor: Tensor
    path: str
    digest: str | None


def gather(directory: str, path: str, *, force: bool = False, changed: bool = False) -> list[Found]:
    """Write a safetensors file of all arrays below ``directory``, in natural order of their names.

    Raises ``ThetaError`` if the file exists (unless ``force``), if there is no room for it, or for an array that
    safetensors cannot hold; ``CorruptObject`` for one that differs from what was exported (unless ``changed``).
    """
    if os.path.lexists(path) and not force:
        raise ThetaError(f"{path} exists already: --force replaces it")
    found = sorted(_arrays(directory), key=lambda item: order(item.name))
    names = [item.name for item in found]
    if not found or len(set(names)) != len(names):
        raise ThetaError(f"two arrays of {directory} have the same name" if found else f"no zarr array in {directory}")
    path = os.path.abspath(path)
    parent = os.path.dirname(path)
    size = sum(item.tensor.nbytes for item in found)
    if size > shutil.disk_usage(parent).free:  # a few bytes of description can claim any number of zeros
        raise ThetaError(f"there is no room for {size} bytes in {parent}")
    with new_file(path) as out:
        write_all(out, header({item.name: item.tensor for item in found}, _metadata(directory)))
        for item in found:
            _copy(item, out, changed=changed)
    return found


def _arrays(directory: str) -> Iterator[Found]:
    """Every array of a tree of groups, by its description."""
    if not os.path.isfile(os.path.join(directory, NODE)):
        raise ThetaError(f"{directory} is no zarr group of version 3: it has no {NODE}")
    for at, folders, files in os.walk(directory):
        node = _read(os.path.join(at, NODE)) if NODE in files else {}
        if node.get("node_type") == "array":
            folders.clear()  # what lies in there are its chunks
            yield _found(at, os.path.relpath(at, directory), node)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            node = json.loads(file.read(_MAX_NODE))
    except (ValueError, RecursionError):
        node = None
    if not isinstance(node, dict):
        raise ThetaError(f"{path} is no description of zarr")
    return node


def _found(at: str, place: str, node: dict[str, Any]) -> Found:
    attributes = node.get("attributes")
    about = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    about = about if isinstance(about, dict) else {}
    name = about.get("name", place.replace(os.sep, "."))
    kind, shape = node.get("data_type"), node.get("shape")
    if not isinstance(name, str) or name == "__metadata__":
        raise ThetaError(f"{place}: an array whose name safetensors cannot hold")
    if not isinstance(kind, str) or kind not in _NAMES:
        raise ThetaError(f"parameter {spell(name)}: safetensors has no type for {str(kind)[:40]}")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise ThetaError(f"parameter {spell(name)}: sizes that are not integers")
    try:
        tensor = Tensor(DTYPES[_NAMES[kind]], tuple(shape))
    except FormatError as error:
        raise ThetaError(f"parameter {spell(name)}: {error}") from None
    digest = about.get("digest")
    return Found(name, tensor, at, digest if isinstance(digest, str) else None)


def _metadata(directory: str) -> dict[str, str]:
    """The texts that the exported file had in its header."""
    if not os.path.isfile(os.path.join(directory, INDEX)):
        return {}
    texts = _read(os.path.join(directory, INDEX)).get("metadata")
    return {str(name): str(text) for name, text in texts.items()} if isinstance(texts, dict) else {}


def _copy(item: Found, out: int, *, changed: bool) -> None:
    """Append the elements of an array in row-major order."""
    store = open_array(array_at(item.path))
    seen, count = sha256(), 0
    for part in _parts(store):
        with translated():
            data = part.read(order="C").result().tobytes()
        seen.update(data)
        count += write_all(out, data)
    if count != item.tensor.nbytes:
        raise ThetaError(f"parameter {spell(item.name)}: {count} bytes instead of {item.tensor.nbytes}")
    if item.digest and not changed and seen.hexdigest() != item.digest:
        raise CorruptObject(f"parameter {spell(item.name)} is not what was exported: --changed takes it as it is")


def _parts(store: Any) -> Iterator[Any]:
    """The array in runs of rows, each a whole number of the chunks that are stored together."""
    if not store.shape:
        yield store
        return
    rows = store.shape[0]
    unit = max(1, store.chunk_layout.write_chunk.shape[0] or 1)
    step = max(1, _PART * rows // max(1, store.size * store.dtype.numpy_dtype.itemsize) // unit) * unit
    for start in range(0, rows, step):
        yield store[start : min(start + step, rows)]

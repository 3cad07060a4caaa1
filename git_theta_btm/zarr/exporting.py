"""Zarr: a model as a group of arrays that every tool for arrays reads in parts, also from an object store.

Specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html, with its sharding codec. Each parameter
is one array in chunks of about 4 MiB and shards of 64 MiB; ``theta.json`` says which, and what it came from.
tensorstore reads and writes the arrays, bit patterns as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..api import Checkpoint
from ..arrays import ML_DTYPES, array, rows
from ..errors import CorruptObject, ThetaError
from ..manifest import Digest, Entry, order, spell
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..arrays import Array

INDEX = "theta.json"
ATTRIBUTE = "git-theta"  # under which an array says what parameter it is
NODE = "zarr.json"
# Element types by zarr's names; what is not here neither zarr nor tensorstore can hold as it is.
TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "C128": "complex128", **ML_DTYPES,
}  # fmt: skip
_CHUNK = 4 << 20  # bytes that are compressed, and read, together
_SHARD = 16  # chunks in one file
_UNSAFE = re.compile("[^A-Za-z0-9_-]")
_LONGEST = 200  # characters of a component: file systems take 255 bytes
_DEEPEST = 1000  # characters of a path: Linux takes 4096 bytes with all that stands before it


def places(names: Iterable[str]) -> dict[str, str]:
    """A path for each parameter: the parts between its dots and slashes, as safe names for files.

    No path lies inside another, nor do two differ in their case alone: a ``~`` at its end keeps one apart.
    """
    plain = {name: _path(name) for name in sorted(names, key=order)}
    taken = {path[: end.start()].casefold() for path in plain.values() for end in re.finditer("/", path)}
    found: dict[str, str] = {}
    for name, path in plain.items():
        while path.casefold() in taken:
            path += "~"
        found[name] = path
        taken.add(path.casefold())
    return found


def _path(name: str) -> str:
    path = "/".join(_component(part) for part in re.split("[./]", name))
    return path if len(path) <= _DEEPEST else "%" + sha256(name.encode(errors="surrogatepass")).hexdigest()


def _component(part: str) -> str:
    """A part of a name with all but letters, digits, ``-`` and ``_`` as ``%`` and their bytes; zarr keeps names that
    start with two underscores to itself."""
    safe = _UNSAFE.sub(lambda match: "".join(f"%{c:02X}" for c in match[0].encode(errors="surrogatepass")), part)
    safe = "%5F" + safe[1:] if safe.startswith("__") else safe or "%"
    return safe if len(safe) <= _LONGEST else "%" + sha256(safe.encode()).hexdigest()


def grid(shape: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Chunks of about 4 MiB that are whole rows, if one fits, and the shards that 16 of them make."""
    chunk: list[int] = []
    shard: list[int] = []
    room, count = max(1, _CHUNK // width), _SHARD
    for size in reversed(shape):
        chunk.insert(0, max(1, min(size, room)))
        room = max(1, room // chunk[0])
        parts = max(1, min(-(-size // chunk[0]), count))
        shard.insert(0, chunk[0] * parts)
        count = max(1, count // parts)
    return chunk, shard


def _spec(path: str, tensor: Tensor, attributes: Mapping[str, object]) -> dict[str, Any]:
    chunk, shard = grid(tensor.shape, tensor.dtype.size)
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    # Measured on weights: bitshuffle and zstd 1 give 0.87 of float32 and 0.75 of bfloat16, at 0.3 GB/s a core.
    squeeze = {"name": "blosc", "configuration": {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle"}}
    inner = {"chunk_shape": chunk, "codecs": [little, squeeze], "index_codecs": [little, {"name": "crc32c"}]}
    metadata = {
        "shape": tensor.shape,
        "data_type": TYPES[tensor.dtype.name],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
        "attributes": attributes,
    }
    # A chunk of zeros is written, too: what is missing is then lost, and not zero.
    return {**array_at(path), "metadata": metadata, "store_data_equal_to_fill_value": True}


def array_at(path: str) -> dict[str, Any]:
    """Where tensorstore finds an array of this machine."""
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": os.path.abspath(path) + "/"}}


def open_array(spec: Mapping[str, Any], *, create: bool = False) -> Any:
    """A tensorstore. Raises ``ThetaError`` if that cannot be installed, reached or understood."""
    try:
        import tensorstore
    except ImportError:
        raise ThetaError("zarr needs tensorstore: pip install tensorstore") from None
    with translated():
        return tensorstore.open(spec, create=create, open=not create, read=True, write=create).result()


@contextmanager
def translated() -> Iterator[None]:
    """tensorstore's errors as one line each."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, NotImplementedError, TypeError) as error:
        raise ThetaError(f"tensorstore: {' '.join(str(error).partition(' [')[0].split())[:500]}") from None


# -- export ----------------------------------------------------------------------------------------------------------


def export(checkpoint: Checkpoint, directory: str, names: Sequence[str], origin: Mapping[str, object]) -> None:
    """Write the parameters ``names`` as a group that appears as a whole. ``origin`` goes into ``theta.json``.

    Raises ``ThetaError`` if ``directory`` exists or zarr has no such type, ``ObjectError`` if a parameter is not here
    or corrupt.
    """
    directory = os.path.abspath(directory)
    if os.path.lexists(directory):
        raise ThetaError(f"{directory} exists already")
    for name in names:
        if checkpoint.entries[name].tensor.dtype.name not in TYPES:
            kind = checkpoint.entries[name].tensor.dtype.name
            raise ThetaError(f"parameter {spell(name)}: zarr has no type for {kind}; leave it out with --parameters")
    temporary = f"{directory}.{os.getpid()}.theta"
    try:
        _write_group(checkpoint, temporary, places(names), origin)
        os.rename(temporary, directory)
    except BaseException:
        import shutil

        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_group(checkpoint: Checkpoint, root: str, paths: Mapping[str, str], origin: Mapping[str, object]) -> None:
    os.makedirs(root)
    groups = {os.path.join(root, path[: end.start()]) for path in paths.values() for end in re.finditer("/", path)}
    for group in sorted({root, *groups}):
        os.makedirs(group, exist_ok=True)
        attributes = dict(origin) if group == root else {}
        _dump(os.path.join(group, NODE), {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    parameters = {}
    for name, path in paths.items():
        entry = checkpoint.entries[name]
        digest = _write_array(checkpoint, entry, os.path.join(root, path))
        kind, shape = entry.tensor.dtype.name, list(entry.tensor.shape)
        parameters[name] = {"path": path, "dtype": kind, "shape": shape, "digest": digest}
    _dump(os.path.join(root, INDEX), {**origin, "metadata": dict(checkpoint.metadata), "parameters": parameters})


def _dump(path: str, value: object) -> None:
    with open(path, "x", encoding="ascii") as file:
        json.dump(value, file, indent=2)


def _write_array(checkpoint: Checkpoint, entry: Entry, path: str) -> Digest:
    """Write one parameter, and return the digest of its elements in row-major order."""
    tensor = Tensor(entry.tensor.dtype, entry.tensor.shape)
    strided = checkpoint[entry.name].tobytes() if entry.tensor.strides else None
    digest = entry.digest if strided is None else Digest.of(strided)
    about = {ATTRIBUTE: {"name": entry.name, "dtype": tensor.dtype.name, "digest": digest}}
    store = open_array(_spec(path, tensor, about), create=True)
    if strided is not None:
        _put(store, array(strided, tensor), entry)
        return digest
    seen = sha256()
    with checkpoint.source(entry.name) as source:
        for part, start, stop in _parts(tensor):
            data = source.read(rows(tensor, start, stop)[1] if tensor.shape else 0, part.nbytes)
            seen.update(data)
            _put(store[start:stop] if tensor.shape else store, array(data, part), entry)
    if seen.hexdigest() != digest:
        raise CorruptObject(f"parameter {spell(entry.name)}: its bytes have another SHA-256: run 'git theta fsck'")
    return digest


def _parts(tensor: Tensor) -> Iterator[tuple[Tensor, int, int]]:
    """The rows of each row of shards, so that a shard is written once."""
    if not tensor.shape:
        yield tensor, 0, 0
    elif tensor.numel:
        step = grid(tensor.shape, tensor.dtype.size)[1][0]
        for start in range(0, tensor.shape[0], step):
            stop = min(start + step, tensor.shape[0])
            yield rows(tensor, start, stop)[0], start, stop


def _put(store: Any, values: Array, entry: Entry) -> None:
    if entry.tensor.dtype.name == "BOOL" and values.size and values.view("u1").max() > 1:
        raise ThetaError(
            f"parameter {spell(entry.name)}: a truth value that is neither 0 nor 1, which zarr cannot hold"
        )
    with translated():
        store.write(values).result()


# -- reading a part --------------------------------------------------------------------------------------------------


def open_zarr(url: str, name: str, start: int | None = None, stop: int | None = None) -> Array:
    """Rows ``start`` to ``stop`` of a parameter of an exported group: only the chunks that hold them are read.

    ``url`` is a local path, or ``file://``, ``http://``, ``https://``, ``gs://`` or ``s3://``. A whole parameter is
    compared with its digest. Raises ``ThetaError`` if it is not there or cannot be read, ``CorruptObject`` if its
    bytes are wrong.
    """
    try:
        import tensorstore
    except ImportError:
        raise ThetaError("zarr needs tensorstore: pip install tensorstore") from None
    url = url.rstrip("/") + "/" if "://" in url else f"file://{os.path.abspath(url)}/"
    with translated():
        group = tensorstore.KvStore.open(url).result()
        text = group.read(INDEX).result().value
    path, digest = _indexed(text, name)
    with translated():
        at = (group / f"{path}/").spec().to_json()
    store = open_array({"driver": "zarr3", "kvstore": at})
    whole = (start, stop) == (None, None)
    if not whole and not store.shape:
        raise ThetaError(f"parameter {spell(name)} has no rows")
    first, last, _ = (0, 0, 1) if whole else slice(start, stop).indices(store.shape[0])
    with translated():
        values: Array = (store if whole else store[first : max(first, last)]).read().result()
    if whole and sha256(values.tobytes()).hexdigest() != digest:
        raise CorruptObject(f"parameter {spell(name)}: its bytes have another SHA-256 than when it was exported")
    return values


def _indexed(text: bytes, name: str) -> tuple[str, str]:
    """Where a parameter is, and its digest, by the group's own index."""
    try:
        entry = json.loads(text)["parameters"][name]
        path, digest = entry["path"], entry["digest"]
        inside = all(part not in ("", ".", "..") for part in path.split("/"))
    except (ValueError, RecursionError, AttributeError):
        raise ThetaError(f"there is no {INDEX} in the group that git theta export could have written") from None
    except (KeyError, TypeError):
        raise ThetaError(f"there is no parameter {spell(name)} in the group") from None
    if not inside:
        raise ThetaError(f"parameter {spell(name)} is said to lie outside the group")
    return path, digest

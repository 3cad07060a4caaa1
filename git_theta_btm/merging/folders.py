"""Folders: a model as transformers' ``save_pretrained`` writes it, which is a configuration and safetensors files.

What a folder says is checked before it is used; nothing outside of it is read because of a name in it. Files are
opened for each read, so that many models in many shards need few descriptors.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .. import formats
from ..errors import ThetaError
from ..remaking import Content, save_safetensors
from ..source import FileSource, check_range
from ..tensor import Tensor

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_COPIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json",
)  # fmt: skip
_MAX_JSON = 64 << 20  # bytes: the index of a model of a million tensors
SHARD = 5_000_000_000  # bytes, as transformers had it before 5.0

Contents: TypeAlias = dict[str, tuple[Tensor, Content]]


class Stretch:
    """``size`` bytes of a file from ``start``, as a source."""

    def __init__(self, path: str, start: int, size: int) -> None:
        self._path, self._start = path, start
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        data = bytearray(size)
        self.readinto(offset, memoryview(data))
        return bytes(data)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        check_range(offset, len(buffer), self.size)
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            FileSource(fd).readinto(self._start + offset, buffer)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model: its configuration, and where the bytes of its tensors are."""

    path: str
    config: Mapping[str, Any]
    tensors: Mapping[str, tuple[Tensor, Stretch]]


def read_model(path: str) -> ModelFolder:
    """The model in a folder, one file or several. Raises ``ThetaError``."""
    config = _read_json(path, CONFIG)
    tensors: dict[str, tuple[Tensor, Stretch]] = {}
    for name, wanted in _files(path):
        found = dict(_tensors(os.path.join(path, name)))
        if missing := sorted(wanted - found.keys()):
            raise ThetaError(f"{path}: {name} has no tensor {missing[0][:200]!r}, which {INDEX} says it has")
        tensors |= {key: found[key] for key in wanted} if wanted else found
    return ModelFolder(path, config, tensors)


def write_model(folder: str, config: Mapping[str, Any], contents: Contents, shard: int = SHARD) -> int:
    """Write a model to an empty folder, in files of at most ``shard`` bytes of tensors; returns that of all of them.

    Raises ``FormatError`` for a tensor that safetensors cannot hold.
    """
    mode = _write_json(folder, CONFIG, config)
    parts: list[Contents] = [{}]
    room = shard
    for name, (tensor, content) in contents.items():
        if tensor.nbytes > room and parts[-1]:
            parts.append({})
            room = shard
        parts[-1][name] = (tensor, content)
        room -= tensor.nbytes
    total = sum(tensor.nbytes for tensor, _ in contents.values())
    places: dict[str, str] = {}
    for count, part in enumerate(parts, 1):
        name = WEIGHTS if len(parts) == 1 else f"model-{count:05}-of-{len(parts):05}.safetensors"
        save_safetensors(os.path.join(folder, name), part, {"format": "pt"}, mode)
        places |= dict.fromkeys(part, name)
    if len(parts) > 1:
        _write_json(folder, INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    return total


def copy_tokenizer(source: str, folder: str) -> None:
    """Copy what belongs to a model apart from its weights: its tokenizer, and how it generates."""
    for name in _COPIED:
        if os.path.isfile(os.path.join(source, name)):
            shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))


def _files(path: str) -> Iterator[tuple[str, set[str]]]:
    """The files of the weights, each with the tensors to be taken from it; none stands for all."""
    if os.path.isfile(os.path.join(path, WEIGHTS)):
        yield WEIGHTS, set()
        return
    if not os.path.isfile(os.path.join(path, INDEX)):
        raise ThetaError(f"{path} has no {WEIGHTS}: save the model as safetensors")
    places = _read_json(path, INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ThetaError(f"{path}/{INDEX} has no weight_map")
    for name in sorted(set(places.values())):
        if os.path.basename(name) != name or not os.path.isfile(os.path.join(path, name)):
            raise ThetaError(f"{path} has no file {name[:200]!r}, which {INDEX} names")
        yield name, {tensor for tensor, place in places.items() if place == name}


def _tensors(path: str) -> Iterator[tuple[str, tuple[Tensor, Stretch]]]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found, located = formats.locate(FileSource(fd))
    finally:
        os.close(fd)
    if found != "safetensors":
        raise ThetaError(f"{path} is no safetensors file")
    for item in located:
        yield item.name, (item.tensor, Stretch(path, item.offset, item.tensor.nbytes))


def _read_json(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise ThetaError(f"{path} is not there: a model is a folder that save_pretrained wrote")
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read(_MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise ThetaError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ThetaError(f"{path} is no JSON object")
    return value


def _write_json(folder: str, name: str, value: Mapping[str, Any]) -> int:
    """Write a file; returns the permissions that new files get here."""
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")
    return stat.S_IMODE(os.stat(path).st_mode)

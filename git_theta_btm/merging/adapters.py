"""Merging adapters: LoRA adapters of several experts become one, which is exactly the weighted sum of what they do.

An expert's change is ``s * B @ A``. The matrices A stacked and the matrices ``w * s * B`` side by side have the sum of
all changes as their product; the rank is the sum of the ranks, and alpha the same, so that the merged scale is 1.
Multiplying the mean of the B with that of the A, as averaging the files would, has cross terms that no expert learned.
Reference: PEFT 0.21, ``peft/tuners/lora/model.py``, ``add_weighted_adapter``; Hu et al., arXiv:2106.09685.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any, TypeAlias

import numpy as np

from .. import api
from ..adapters.edits import Operand
from ..adapters.files import CONFIG, WEIGHTS, Update, adapter, parse_config, read_update
from ..care.versions import located
from ..errors import ThetaError
from ..floats import Floats, is_float, narrow, widen
from ..planes import TYPES
from ..remaking import Content, new_folder, save_safetensors
from ..repository import Repository
from ..source import BytesSource
from ..tensor import DTYPES, Tensor
from .filing import Desk

_PREFIX, _EMBEDDING = "base_model.model.", "lora_embedding_"
_ELEMENTS = 1 << 20  # that are computed at a time: 8 MiB
_UNCHANGED = ("base_model_name_or_path", "task_type", "fan_in_fan_out")


@dataclass(frozen=True, slots=True)
class MergedAdapter:
    """What was written: the modules that it adapts with their ranks, whether it is the sum exactly, to the rounding of
    its element type, and else the share of the sum's norm that was cut off, over all modules."""

    ranks: Mapping[str, int]
    exact: bool
    lost: float


@dataclass(frozen=True, slots=True)
class _Part:
    """One adapter's change of one module: its weight times its scale, and the factors."""

    factor: float
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class _Module:
    """The factors of the sum as they are written, and the squared norms of what is in them and of what was cut off."""

    left: tuple[Tensor, Content]
    right: tuple[Tensor, Content]
    kept: float = 0.0
    cut: float = 0.0

    @property
    def rank(self) -> int:
        return self.right[0].shape[0]


Parts: TypeAlias = Mapping[str, Sequence[_Part]]


def merge_adapters(
    folders: Sequence[str], out: str, weights: Sequence[float] = (), rank: int | None = None
) -> MergedAdapter:
    """Write the sum of the adapters' changes, each times its weight, as an adapter to the new folder ``out``.

    An adapter is a folder, or ``REV:DIR``, one in a commit. Without weights each has ``1 / N``. With a rank, no
    module's factors are of a higher one: of the sum the largest singular values are kept. Raises ``ThetaError`` for
    whatever is more than LoRA factors of the same base.
    """
    weights = tuple(weights) or (1.0 / max(1, len(folders)),) * len(folders)
    if len(weights) != len(folders) or not any(weights) or not all(map(isfinite, weights)):
        raise ThetaError(f"{len(folders)} adapters take as many weights, finite and not all of them 0")
    with ExitStack() as stack:
        found = [_read_adapter(folder, stack) for folder in folders]
        updates = [update for _, update in found]
        parts = _parts(folders, updates, weights)
        config = _config([own for own, _ in found], updates)
        modules = {name: _stacked(found) for name, found in parts.items()}
        if rank is not None:
            modules = {name: _truncated(name, parts[name], module, rank) for name, module in modules.items()}
        _write(out, parts, modules, config)
    kept, cut = (sum(getattr(module, field) for module in modules.values()) for field in ("kept", "cut"))
    ranks = {name: module.rank for name, module in modules.items()}
    return MergedAdapter(ranks, not cut, (cut / (cut + kept)) ** 0.5 if cut else 0.0)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read_adapter(word: str, stack: ExitStack) -> tuple[Mapping[str, Any], Update]:
    """The configuration and the changes of an adapter on disk, else of one in a commit. Raises ``ThetaError``."""
    if ":" in word and not os.path.lexists(word):
        return _committed(*word.split(":", 1))
    folder = os.path.dirname(word) if os.path.isfile(word) else word
    update = read_update("low-rank", folder, stack)
    path = os.path.join(folder, CONFIG)
    with open(path, "rb") as file:
        return parse_config(path, file.read()), update


def _committed(revision: str, folder: str) -> tuple[Mapping[str, Any], Update]:
    repository, word = Repository(), f"{revision}:{folder}"
    name = f"{revision}:{located(repository, os.path.join(folder, CONFIG))}"
    oid = repository.git.oid(name)
    if not oid:
        raise ThetaError(f"{word} has no {CONFIG}: an adapter is a folder that PEFT's save_pretrained wrote")
    config = parse_config(name, repository.git.blob(oid))
    if config.get("peft_type") != "LORA":
        raise ThetaError(f"{word} is an adapter of type {config.get('peft_type')!r:.40}, not LORA")
    found = api.open(os.path.join(folder, WEIGHTS), revision)
    with Desk(repository) as desk:
        desk.gather([found.manifest])
    factors = found.entries.items()
    operands = {key: Operand(key, entry.tensor, BytesSource(found.raw(key))) for key, entry in factors}
    return config, adapter(word, config, operands)


def _parts(folders: Sequence[str], updates: Sequence[Update], weights: Sequence[float]) -> Parts:
    """For each module, what each adapter does to it. Raises ``ThetaError`` if they cannot be added."""
    parts: dict[str, list[_Part]] = {}
    for folder, update, weight in zip(folders, updates, weights, strict=True):
        for edit in update.edits:
            module = edit.target.removesuffix(".weight")
            if edit.kind != "low_rank":
                raise ThetaError(f"{folder} has the parameter {edit.target} whole: only LoRA factors can be added up")
            if weight * edit.scale:
                parts.setdefault(module, []).append(_Part(weight * edit.scale, *edit.operands))
    for module, found in parts.items():
        _check(module, found)
    if not parts:
        raise ThetaError("there is nothing to add up: no adapter of a weight other than 0 changes anything")
    return dict(sorted(parts.items()))


def _check(module: str, parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts:
        left, right = part.left.tensor, part.right.tensor
        if not is_float(left.dtype.name) or not is_float(right.dtype.name) or left.strides or right.strides:
            raise ThetaError(f"{module}: cannot compute with {left} and {right}")
        if left.shape[1:2] != right.shape[:1] or any(size != 1 for size in left.shape[2:]):
            raise ThetaError(f"{module}: {part.left.name} is {left}, which does not fit {right}")
        sizes = (left.shape[0], left.shape[2:], right.shape[1:])
        if sizes != (first.left.tensor.shape[0], first.left.tensor.shape[2:], first.right.tensor.shape[1:]):
            raise ThetaError(f"{module} is of different sizes: {first.left.tensor} and {left}, or what goes with them")
        if (_EMBEDDING in part.left.name) != (_EMBEDDING in first.left.name):
            raise ThetaError(f"{module} is an embedding for one adapter, and none for another")


def _config(configs: Sequence[Mapping[str, Any]], updates: Sequence[Update]) -> dict[str, Any]:
    """What the merged adapter says of itself apart from its modules. Raises ``ThetaError`` if there are two bases."""
    common = {key: configs[0].get(key) for key in _UNCHANGED if all(c.get(key) == configs[0].get(key) for c in configs)}
    bases = {frozenset(update.bases) for update in updates if update.bases}
    if len({bool(config.get("fan_in_fan_out")) for config in configs}) > 1:
        raise ThetaError("fan_in_fan_out is true for one adapter and false for another: their bases differ")
    if len(bases) > 1:
        raise ThetaError("the adapters were made for different versions: their theta_base differs")
    stated = {"theta_base": sorted(bases.pop())} if bases else {}
    return {"peft_type": "LORA", "inference_mode": True, "bias": "none", "lora_dropout": 0.0, **common, **stated}


# -- adding up -------------------------------------------------------------------------------------------------------


def _stacked(parts: Sequence[_Part]) -> _Module:
    """The exact sum: all factors side by side."""
    operands = [operand for part in parts for operand in (part.left, part.right)]
    dtype = DTYPES["F64" if any(item.tensor.dtype.name == "F64" for item in operands) else "F32"]
    rank = sum(part.right.tensor.shape[0] for part in parts)
    outer, inner = parts[0].left.tensor.shape, parts[0].right.tensor.shape
    left, right = Tensor(dtype, (outer[0], rank, *outer[2:])), Tensor(dtype, (rank, *inner[1:]))
    return _Module((left, partial(_lefts, parts, left)), (right, partial(_rights, parts, right)))


def _rights(parts: Sequence[_Part], tensor: Tensor) -> Iterator[bytes]:
    for part in parts:
        count = part.right.tensor.numel
        for start in range(0, count, _ELEMENTS):
            yield narrow(_read(part.right, start, min(_ELEMENTS, count - start)), tensor.dtype.name).tobytes()


def _lefts(parts: Sequence[_Part], tensor: Tensor) -> Iterator[bytes]:
    rows, rank = tensor.shape[:2]
    step = max(1, _ELEMENTS // rank)
    for start in range(0, rows, step):
        numbers = np.hstack([_left(part, start, min(step, rows - start)) for part in parts])
        yield narrow(numbers, tensor.dtype.name).tobytes()


def _left(part: _Part, start: int, count: int) -> Floats:
    """Rows of a left factor, times the part's weight and scale."""
    rank = part.left.tensor.shape[1]
    return part.factor * _read(part.left, start * rank, count * rank).reshape(count, rank)


def _read(operand: Operand, start: int, count: int) -> Floats:
    width = operand.tensor.dtype.size
    data = operand.source.read(start * width, count * width)
    return widen(np.frombuffer(data, TYPES[width]), operand.tensor.dtype.name)


def _truncated(name: str, parts: Sequence[_Part], module: _Module, rank: int) -> _Module:
    """The nearest sum of at most this rank, by the singular values of the product, which is never multiplied out.

    Raises ``ThetaError`` for factors that are not finite.
    """
    left = np.hstack([_left(part, 0, part.left.tensor.shape[0]) for part in parts])
    right = np.vstack([_right(part) for part in parts])
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ThetaError(f"{name} has factors that are not finite")
    left_basis, left_rest = np.linalg.qr(left)
    right_basis, right_rest = np.linalg.qr(right.T)
    turned, values, other = np.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    squares = values**2
    if module.rank <= rank:
        return replace(module, kept=float(squares.sum()))
    kept = min(rank, len(values))
    roots = np.sqrt(values[:kept])
    factors = (left_basis @ turned[:, :kept] * roots, (right_basis @ (other[:kept].T * roots)).T)
    shapes = ((module.left[0].shape[0], kept, *module.left[0].shape[2:]), (kept, *module.right[0].shape[1:]))
    left_made, right_made = (_made(array, module, shape) for array, shape in zip(factors, shapes, strict=True))
    return _Module(left_made, right_made, float(squares[:kept].sum()), float(squares[kept:].sum()))


def _right(part: _Part) -> Floats:
    """A right factor as a matrix."""
    return _read(part.right, 0, part.right.tensor.numel).reshape(part.right.tensor.shape[0], -1)


def _made(array: Floats, module: _Module, shape: tuple[int, ...]) -> tuple[Tensor, Content]:
    dtype = module.left[0].dtype
    return Tensor(dtype, shape), BytesSource(narrow(np.ascontiguousarray(array), dtype.name).tobytes())


# -- writing ---------------------------------------------------------------------------------------------------------


def _write(out: str, parts: Parts, modules: Mapping[str, _Module], config: Mapping[str, Any]) -> None:
    contents: dict[str, tuple[Tensor, Content]] = {}
    for name, module in modules.items():
        embedding = _EMBEDDING in parts[name][0].left.name
        role, end = (_EMBEDDING, "") if embedding else ("lora_", ".weight")
        contents[f"{_PREFIX}{name}.{role}A{end}"] = module.right
        contents[f"{_PREFIX}{name}.{role}B{end}"] = module.left
    with new_folder(out) as folder:
        path = os.path.join(folder, CONFIG)
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**config, **_ranks(modules)}, file, indent=2, sort_keys=True)
        mode = stat.S_IMODE(os.stat(path).st_mode)
        save_safetensors(os.path.join(folder, WEIGHTS), contents, {"format": "pt"}, mode)


def _ranks(modules: Mapping[str, _Module]) -> dict[str, Any]:
    """The ranks as PEFT's configuration has them; alpha is the rank everywhere, so that the scale is 1.

    A pattern is anchored: PEFT would otherwise take it for every module whose name ends like it.
    """
    rank = max(module.rank for module in modules.values())
    patterns = {f"^{re.escape(name)}": module.rank for name, module in modules.items() if module.rank != rank}
    return {
        "target_modules": list(modules),
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "use_rslora": False,
    }

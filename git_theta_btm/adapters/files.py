"""Updates from files: adapters as PEFT saves them, and files of tensors.

Nothing is unpickled, imported or executed: an adapter is a JSON object and a safetensors file, or it is refused.
Reference: PEFT 0.21, ``peft/tuners/lora/layer.py``, ``peft/tuners/ia3/layer.py`` and ``get_pattern_key``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from .. import formats
from ..errors import ThetaError
from ..source import FileSource, Part
from .edits import Edit, Operand

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
KINDS = ("low-rank", "ia3", "sparse", "dense")
_PEFT = {"low-rank": "LORA", "ia3": "IA3"}
_MAX_CONFIG = 1 << 20  # bytes; PEFT writes one or two thousand
_PREFIX = "base_model.model."
_LEFT, _RIGHT = ("lora_B", "lora_embedding_B"), ("lora_A", "lora_embedding_A")
_VECTOR = "ia3_l"
# What makes an adapter more than base + scale * B @ A, or means another base than the one that was loaded.
_REFUSED = (
    "use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config",
    "layer_replication", "target_parameters", "trainable_token_indices", "lora_bias",
)  # fmt: skip
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # initialisations that leave the base as it is
# A pattern of the configuration is a regular expression: two repetitions and no groups end in cubic time at worst.
_PATTERN = re.compile(r"[\w.^$\\\[\]-]*(?:[*+][\w.^$\\\[\]-]*){0,2}", re.ASCII)
_MAX_NAME = 300
_MAX_NUMBER = 1e9  # above any rank or alpha, and no infinity


@dataclass(frozen=True, slots=True)
class Update:
    """What an update asks for, and the digests of the versions that it was made for; none if it does not say."""

    edits: tuple[Edit, ...]
    bases: tuple[str, ...] = ()


def read_update(kind: str, path: str, stack: ExitStack) -> Update:
    """The update of one of ``KINDS`` in a folder or file, which stays open in ``stack``. Raises ``ThetaError``."""
    if kind in _PEFT:
        return _read_adapter(kind, os.path.dirname(path) if os.path.isfile(path) else path, stack)
    tensors = _open(path, stack)
    return Update(_sparse(tensors) if kind == "sparse" else tuple(_dense(tensors)))


def _open(path: str, stack: ExitStack) -> dict[str, Operand]:
    """The tensors of a file by name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    source = FileSource(fd)
    name, located = formats.locate(source)
    if name == formats.OPAQUE:
        raise ThetaError(f"{path} holds no tensors that can be read")
    return {
        item.name: Operand(item.name, item.tensor, Part(source, item.offset, item.tensor.nbytes)) for item in located
    }


def _dense(tensors: Mapping[str, Operand]) -> list[Edit]:
    return [Edit(name, "dense", (tensor,)) for name, tensor in tensors.items()]


def _sparse(tensors: Mapping[str, Operand]) -> tuple[Edit, ...]:
    """Pairs ``<parameter>.indices`` (flat, int64) and ``<parameter>.values``."""
    ends = (".indices", ".values")
    targets = {name.removesuffix(end): None for name in tensors for end in ends if name.endswith(end)}
    odd = [name for name in tensors if not name.endswith(ends)]
    odd += [target + end for target in targets for end in ends if target + end not in tensors]
    if odd:
        raise ThetaError(f"a sparse update is pairs of NAME.indices and NAME.values; {odd[0][:_MAX_NAME]} is in none")
    return tuple(Edit(target, "sparse", (tensors[target + ends[0]], tensors[target + ends[1]])) for target in targets)


# -- adapters --------------------------------------------------------------------------------------------------------


def _read_adapter(kind: str, folder: str, stack: ExitStack) -> Update:
    config = _read_config(os.path.join(folder, CONFIG))
    if config.get("peft_type") != _PEFT[kind]:
        raise ThetaError(f"{folder} is an adapter of type {config.get('peft_type')!r:.40}, not {_PEFT[kind]}")
    path = os.path.join(folder, WEIGHTS)
    if not os.path.exists(path) and os.path.exists(os.path.join(folder, PICKLE)):
        raise ThetaError(f"{folder}/{PICKLE} is a pickle, which could run code when it is read: save it as safetensors")
    return adapter(folder, config, _open(path, stack))


def adapter(name: str, config: Mapping[str, Any], tensors: Mapping[str, Operand]) -> Update:
    """What an adapter asks for, by its configuration; ``name`` is what messages call it. Raises ``ThetaError``."""
    if config.get("peft_type") not in _PEFT.values():
        raise ThetaError(f"{name} is an adapter of type {config.get('peft_type')!r:.40}: merge with PEFT, and add that")
    _check_config(config, name)
    return Update(tuple(_edits(tensors, config)), bases(name, config))


def bases(name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The digests of the versions that an adapter says it is for. Raises ``ThetaError`` for something else."""
    found = config.get("theta_base", [])
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(base, str) for base in found):
        raise ThetaError(f"{name}/{CONFIG}: theta_base is neither a digest nor a list of digests")
    return tuple(found)


def _read_config(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return parse_config(path, file.read(_MAX_CONFIG))
    except FileNotFoundError:
        raise ThetaError(f"{path} is not there: an adapter is a folder that PEFT's save_pretrained wrote") from None


def parse_config(path: str, data: bytes) -> dict[str, Any]:
    """The configuration in a file. Raises ``ThetaError`` for one that is none."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ThetaError(f"{path} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise ThetaError(f"{path} is no JSON object")
    return config


def _check_config(config: Mapping[str, Any], folder: str) -> None:
    for key in _REFUSED:
        if config.get(key):
            raise ThetaError(f"{folder}: adapters with {key} are not supported; merge with PEFT, and add the result")
    start = config.get("init_lora_weights")
    if not isinstance(start, bool | str | None) or start not in _STARTS:
        raise ThetaError(
            f"{folder}: init_lora_weights={start!r:.40} changed the base weights; convert the adapter first: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )


def _edits(tensors: Mapping[str, Operand], config: Mapping[str, Any]) -> list[Edit]:
    """The adapter's changes. Raises ``ThetaError`` naming a tensor of unknown meaning."""
    factors: dict[str, dict[str, Operand]] = {}
    edits = []
    for name, tensor in tensors.items():
        if len(name) > _MAX_NAME:
            raise ThetaError(f"a tensor of the adapter has a name of {len(name)} characters")
        if (
            ".original_module." in name
        ):  # what modules_to_save replaced, which PEFT saves for bias="all" and never reads
            continue
        module, role = _role(name)
        if not role:
            edits.append(Edit(module, "dense", (tensor,)))
        elif factors.setdefault(module, {}).setdefault(role, tensor) is not tensor:
            raise ThetaError(f"{name}: {module} has two adapters in one file")
    return [_edit(module, found, config) for module, found in factors.items()] + edits


def _role(name: str) -> tuple[str, str]:
    """The module that a tensor of an adapter belongs to and what it is of it, or a parameter's name and nothing."""
    words = name.removeprefix(_PREFIX).split(".")
    for at, word in enumerate(words):
        if word in (*_LEFT, *_RIGHT, _VECTOR):
            tail = words[at + 1 :]  # the adapter's name, if PEFT left it there, and "weight"
            if len(tail) > 2 or (tail and tail[-1] in ("bias", "base_layer")):
                break
            return ".".join(words[:at]), word
        if word.startswith(("lora_", "ia3_", "trainable_tokens")):
            break
    else:
        return ".".join(word for word in words if word not in ("base_layer", "modules_to_save")), ""
    raise ThetaError(f"{name}: adapters with such a tensor are not supported; merge with PEFT, and add the result")


def _edit(module: str, found: Mapping[str, Operand], config: Mapping[str, Any]) -> Edit:
    transposed = bool(config.get("fan_in_fan_out"))
    if found.keys() == {_VECTOR}:
        return Edit(f"{module}.weight", "ia3", (found[_VECTOR],), transposed=transposed)
    for left, right in zip(_LEFT, _RIGHT, strict=True):
        if found.keys() == {left, right}:
            shape = found[right].tensor.shape
            scale = _scale(module, shape[0] if shape else 0, config)
            embedding = left == _LEFT[1]  # an embedding's factors are those of its transpose
            operands = (found[left], found[right])
            return Edit(f"{module}.weight", "low_rank", operands, scale, embedding or transposed)
    raise ThetaError(f"{module}: a factor is missing; there is only {', '.join(sorted(found))}")


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """The number that B @ A is multiplied by: alpha / r, or alpha / sqrt(r) (rsLoRA, arXiv:2312.03732)."""
    stated = _of_module(module, config, "rank_pattern", "r")
    if stated != rank or not rank:
        raise ThetaError(f"{module}: the factors are of rank {rank}, {CONFIG} says {stated:g}")
    alpha = _of_module(module, config, "alpha_pattern", "lora_alpha")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _of_module(module: str, config: Mapping[str, Any], patterns: str, key: str) -> float:
    """A number of the configuration: that of the first pattern which matches the module, else the general one."""
    value = config.get(key)
    for pattern, own in _patterns(config, patterns).items():
        if _matches(pattern, module):
            value = own
            break
    if not isinstance(value, int | float) or not abs(value) < _MAX_NUMBER:
        raise ThetaError(f"{CONFIG}: {key} of {module} is {str(value)[:40]}, which is no number")
    return float(value)


def _patterns(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise ThetaError(f"{CONFIG}: {key} is no object")
    return patterns


def _matches(pattern: str, module: str) -> bool:
    if not _PATTERN.fullmatch(pattern) or len(pattern) > _MAX_NAME:
        raise ThetaError(f"{CONFIG}: the pattern {pattern[:80]!r} is more than names, classes and two repetitions")
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except re.error as error:
        raise ThetaError(f"{CONFIG}: the pattern {pattern[:80]!r} is wrong: {error}") from None

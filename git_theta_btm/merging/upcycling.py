"""Upcycling: dense experts of one seed become one mixture-of-experts model, to be trained on.

Sukhbaatar et al., "Branch-Train-MiX: Mixing Expert LLMs into a Mixture-of-Experts LLM", arXiv:2403.07816: the
feed-forward blocks of the N models become the N experts of each layer, all other weights are averaged, and the router
is new. Llama and Mistral become Mixtral, whose layers differ from theirs in nothing but the mixture; Qwen2 has biases
and its mixture a shared expert, which is another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Literal

import numpy as np

from ..errors import ThetaError
from ..floats import TILE, is_float, narrow, widen
from ..manifest import order
from ..maths import chance
from ..merges import Sides, Tile
from ..merges.average import Average
from ..parallel import stream_threads
from ..planes import TYPES
from ..remaking import new_folder
from ..source import Source
from ..tensor import Tensor
from .folders import SHARD, Contents, ModelFolder, copy_tokenizer, read_model, write_model

Router = Literal["random", "zeros"]

# Where Mixtral's own default is another, one that a configuration leaves out must be said. transformers 4.48 and 5.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"sliding_window": None, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {"sliding_window": 4096, "num_key_value_heads": 8},
}
_THETA = 10000.0  # the base of the rotary embedding in both; Mixtral's is 1e6
_DROPPED = ("mlp_bias", "attention_bias", "pretraining_tp", "layer_types", "auto_map", "_name_or_path")
_AGREE = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters",
    "sliding_window", "tie_word_embeddings",
)  # fmt: skip
_BLOCK = re.compile(r"(?:model\.)?layers\.[0-9]{1,6}\.mlp\.")
_NAMES = {"gate_proj.weight": "w1.weight", "down_proj.weight": "w2.weight", "up_proj.weight": "w3.weight"}
_UNIFORMS = 12  # whose sum has a variance of 1
_SPREAD = 0.02  # of new weights, where a configuration has no initializer_range


@dataclass(frozen=True, slots=True)
class Routing:
    """How many experts a token is sent to, and what the router starts as."""

    top_k: int = 2
    router: Router = "random"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Upcycled:
    """What was written: numbers of experts, layers and elements, and bytes of tensors."""

    experts: int
    layers: int
    elements: int
    size: int


def upcycle(
    folders: Sequence[str], out: str, weights: Sequence[float] = (), routing: Routing | None = None, shard: int = SHARD
) -> Upcycled:
    """Write a Mixtral model of the experts in ``folders`` to the new folder ``out``, in files of ``shard`` bytes.

    ``weights`` are those of the average, equal ones if there are none. Raises ``ThetaError`` for models that do not fit
    each other, or that Mixtral has no place for.
    """
    routing, weights = routing or Routing(), tuple(weights) or (1.0,) * len(folders)
    if len(folders) < 2 or not 1 <= routing.top_k <= len(folders):
        raise ThetaError(f"{len(folders)} models are no mixture of which each token gets {routing.top_k}")
    if len(weights) != len(folders) or not all(map(isfinite, weights)):
        raise ThetaError(f"{len(folders)} models take as many weights")
    models = [read_model(folder) for folder in folders]
    config = _config(models, routing)
    _check(models)
    contents = _contents(models, weights, routing, config)
    with new_folder(out) as folder:
        size = write_model(folder, config, contents, shard)
        copy_tokenizer(models[0].path, folder)
    elements = sum(tensor.numel for tensor, _ in contents.values())
    return Upcycled(len(models), config["num_hidden_layers"], elements, size)


# -- configurations --------------------------------------------------------------------------------------------------


def _config(models: Sequence[ModelFolder], routing: Routing) -> dict[str, Any]:
    """Mixtral's configuration. Raises ``ThetaError`` if it cannot be that of these models."""
    first = models[0]
    kind = str(first.config.get("model_type"))
    if kind not in _DEFAULTS:
        raise ThetaError(f"{first.path} is a {kind[:40]!r} model: only {' and '.join(_DEFAULTS)} become Mixtral")
    for model in models:
        for key in _AGREE:
            if model.config.get(key) != first.config.get(key):
                raise ThetaError(f"{first.path} and {model.path} have different values of {key}")
        for key in ("attention_bias", "mlp_bias", "quantization_config"):
            if model.config.get(key):
                raise ThetaError(f"{model.path} has {key}, which Mixtral has no place for")
    kept = {key: value for key, value in first.config.items() if key not in _DROPPED}
    stated = {key: value for key, value in kept.items() if value is not None or key == "sliding_window"}
    return {
        **{"rms_norm_eps": 1e-6, "num_key_value_heads": kept.get("num_attention_heads")},
        **_DEFAULTS[kind],
        **stated,
        **_rotary(stated),
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": len(models),
        "num_experts_per_tok": routing.top_k,
        "output_router_logits": False,
    }


def _rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """The base of the rotary embedding where transformers 4 looks for it, and where 5 does."""
    scheme = config.get("rope_parameters")
    scheme = scheme if isinstance(scheme, dict) else {}
    theta = scheme.get("rope_theta", config.get("rope_theta", _THETA))
    return {"rope_theta": theta, **({"rope_parameters": {**scheme, "rope_theta": theta}} if scheme else {})}


def _check(models: Sequence[ModelFolder]) -> None:
    """Raise ``ThetaError`` unless all models have the same tensors, which the mixture has a place for."""
    first = models[0]
    for model in models[1:]:
        if odd := sorted(first.tensors.keys() ^ model.tensors.keys()):
            raise ThetaError(f"only one of {first.path} and {model.path} has {odd[0][:200]}")
        for name, (tensor, _) in first.tensors.items():
            other = model.tensors[name][0]
            if other != tensor:
                raise ThetaError(f"{name[:200]} is {tensor} in {first.path} and {other} in {model.path}")
    blocks = _blocks({name: tensor for name, (tensor, _) in first.tensors.items()})
    if blocks != first.config.get("num_hidden_layers"):
        raise ThetaError(f"{first.path} has {blocks} feed-forward blocks, and not as many layers")


def _blocks(tensors: Mapping[str, Tensor]) -> int:
    """The number of feed-forward blocks. Raises ``ThetaError`` for a tensor that the mixture has no place for."""
    blocks: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        if name.endswith(".bias"):
            raise ThetaError(f"{name[:200]}: Mixtral has no biases")
        if match := _BLOCK.match(name):
            blocks.setdefault(match[0], set()).add(name[match.end() :])
        if not is_float(tensor.dtype.name) or (match and len(tensor.shape) != 2):
            raise ThetaError(f"{name[:200]} is {tensor}, which has no place in a mixture")
    for prefix, found in blocks.items():
        if odd := sorted(found ^ _NAMES.keys()):
            raise ThetaError(f"{prefix}{odd[0][:200]}: a feed-forward block is {', '.join(_NAMES)}")
    return len(blocks)


# -- tensors ---------------------------------------------------------------------------------------------------------


def _contents(
    models: Sequence[ModelFolder], weights: Sequence[float], routing: Routing, config: Mapping[str, Any]
) -> Contents:
    """All tensors of the mixture, as Mixtral names them."""
    contents: Contents = {}
    for name in sorted(models[0].tensors, key=order):
        tensor = models[0].tensors[name][0]
        match = _BLOCK.match(name)
        if match is None:
            sources = [model.tensors[name][1] for model in models]
            contents[name] = (tensor, partial(_average, tensor, sources, tuple(weights)))
            continue
        mixture = match[0].removesuffix("mlp.") + "block_sparse_moe."
        if name.endswith(".gate_proj.weight"):
            gate = f"{mixture}gate.weight"
            shape = Tensor(tensor.dtype, (len(models), tensor.shape[-1]))
            contents[gate] = (shape, partial(_router, gate, shape, routing, _spread(config)))
        for place, model in enumerate(models):
            contents[f"{mixture}experts.{place}.{_NAMES[name[match.end() :]]}"] = model.tensors[name]
    return contents


def _average(tensor: Tensor, sources: Sequence[Source], weights: tuple[float, ...]) -> Iterator[bytes]:
    """The weighted mean, computed in float64 and rounded once."""
    strategy = Average()
    measures = strategy.measure(Sides("", tensor.shape, weights, tuple), {})
    name, width = tensor.dtype.name, tensor.dtype.size

    def make(start: int) -> bytes:
        count = min(TILE, tensor.numel - start)
        blocks = (source.read(start * width, count * width) for source in sources)
        tips = tuple(widen(np.frombuffer(block, TYPES[width]), name) for block in blocks)
        with np.errstate(over="ignore", invalid="ignore"):
            return narrow(strategy.combine(Tile(tips, weights, start=start), measures), name).tobytes()

    return stream_threads(make, range(0, tensor.numel, TILE))


def _router(name: str, tensor: Tensor, routing: Routing, spread: float) -> Iterator[bytes]:
    """The rows of a router. Each number is a sum of twelve uniform ones, which is normal but for its tails, and the
    same bits everywhere, as what a library makes of logarithms and sines is not."""
    count, size = tensor.shape
    if routing.router == "zeros":
        yield bytes(tensor.nbytes)
        return
    key = chance.key(str(routing.seed), name)
    for row in range(count):
        parts = chance.uniform(key, row * size * _UNIFORMS, size * _UNIFORMS).reshape(size, _UNIFORMS)
        numbers = sum((parts[:, place] for place in range(1, _UNIFORMS)), start=parts[:, 0])
        yield narrow((numbers - _UNIFORMS / 2) * spread, tensor.dtype.name).tobytes()


def _spread(config: Mapping[str, Any]) -> float:
    value = config.get("initializer_range", _SPREAD)
    return float(value) if isinstance(value, int | float) and isfinite(value) and value > 0 else _SPREAD

"""Parts: which parameters of a model are trained. By their names, so that it works for every architecture."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from .requests import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What feed-forward and attention modules are called in the models of transformers.
_KINDS = {
    "mlp": {"mlp", "ffn", "feed_forward", "feedforward", "fc1", "fc2", "intermediate", "output", "block_sparse_moe"},
    "attn": {"attn", "attention", "self_attn", "self_attention", "selfattention"},
}
_LORA = {"r": 8, "alpha": 16, "dropout": 0.0}


def layers(text: str) -> set[int]:
    """The numbers that ``9-13,15`` names. Raises ``UsageError``."""
    found: set[int] = set()
    for word in text.split(","):
        low, dash, high = word.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise UsageError(f"layers are like 9-13,15, not {text!r}")
        if dash and int(high) < int(low):
            raise UsageError(f"layers {word} run backwards")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def layer(name: str) -> int | None:
    """The layer that a parameter belongs to: the first number in its name; None for embeddings and the like."""
    return next((int(word) for word in name.split(".") if word.isdecimal()), None)


def chosen(names: Iterable[str], part: Part) -> set[str]:
    """The parameters that are trained. Raises ``UsageError`` if there is no such layer, or there are none at all."""
    names = list(names)
    kept = set(names)
    if part.layers:
        wanted = layers(part.layers)
        if missing := wanted - {found for name in names if (found := layer(name)) is not None}:
            raise UsageError(f"the model has no layer {min(missing)}")
        kept = {name for name in names if layer(name) in wanted}
    if part.trainable:
        kept &= {name for name in names if _fits(name, part.trainable)}
    if not kept:
        raise UsageError(f"nothing would be trained; a parameter is called {names[len(names) // 2]}")
    return kept


def _fits(name: str, pattern: str) -> bool:
    kind = _KINDS.get(pattern)
    if kind is None:
        return fnmatchcase(name, pattern)
    words = name.split(".")
    inside = set(words) & _KINDS["attn"] if pattern != "attn" else set()  # attention has an "output" in some models
    return bool(set(words) & kind) and not inside


def freeze(model: PreTrainedModel, part: Part) -> Any:
    """The model with everything frozen that is not trained; with ``lora``, an adapter around it."""
    if part.lora:
        return _adapted(model, part)
    kept = chosen([name for name, _ in model.named_parameters()], part)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in kept)
    return model


def lora_options(text: str) -> dict[str, str]:
    """Options like ``r=8,alpha=16,targets=c_attn+c_proj``, or ``8`` for the rank alone. Raises ``UsageError``."""
    words = dict(pair.partition("=")[::2] for pair in (f"r={text}" if text.isdecimal() else text).split(","))
    if unknown := words.keys() - {*_LORA, "targets"}:
        raise UsageError(f"an adapter has no option {min(unknown)!r}: it has r, alpha, dropout and targets")
    try:
        numbers = {key: float(value) for key, value in words.items() if key in _LORA}
    except ValueError:
        raise UsageError(f"an adapter's options are numbers: {text!r}") from None
    if numbers.get("r", 8) < 1:
        raise UsageError("an adapter's rank is at least 1")
    return words


def _adapted(model: PreTrainedModel, part: Part) -> Any:
    from peft import LoraConfig, get_peft_model

    targets: Any = part.lora.get("targets", "all-linear")
    names = [name for name, _ in model.named_modules()]
    wanted = sorted(layers(part.layers)) if part.layers else None
    if targets != "all-linear" or wanted:
        given = set(targets.split("+")) if targets != "all-linear" else _linear(model)
        targets = [name for name in names if name.rpartition(".")[2] in given and (not wanted or layer(name) in wanted)]
        if not targets:
            raise UsageError(f"the model has no modules called {', '.join(sorted(given))}")
    config = LoraConfig(
        r=int(part.lora.get("r", _LORA["r"])), lora_alpha=int(float(part.lora.get("alpha", _LORA["alpha"]))),
        lora_dropout=float(part.lora.get("dropout", _LORA["dropout"])), target_modules=targets, task_type="CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )  # fmt: skip
    return get_peft_model(model, config)


def _linear(model: PreTrainedModel) -> set[str]:
    """What the modules are called that multiply by a matrix, the head aside."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    kinds = ("Linear", "Conv1D")
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if type(module).__name__ in kinds and module is not head
    }

"""fairseq: a ``transformer_lm`` checkpoint as a Hugging Face model that computes the same function.

Learned positions become OPT, sinusoidal ones XGLM: both descend from fairseq's decoder. Nothing is unpickled: tensors
are located, and the few arguments that matter are read off the pickle's opcodes.
Reference: fairseq 0.12, models/transformer_lm.py, models/transformer/transformer_decoder.py, and
modules/transformer_layer.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING, Any

from ..errors import FormatError, ThetaError
from ..merging.folders import write_model
from ..remaking import Content
from ..repository import Repository
from ..source import FileSource, Part, Source
from ..tensor import Tensor
from .arguments import arguments
from .importing import seed, tensors
from .vocabularies import of_dictionary

if TYPE_CHECKING:
    Contents = dict[str, tuple[Tensor, Content]]

_PREFIX = "model.decoder."
_EMBED, _POSITIONS, _NORM = "embed_tokens.weight", "embed_positions.weight", "layer_norm."
_HEADS = ("output_projection.weight", "embed_out")  # new and old name of the head
_IGNORED = ("version", "embed_positions._float_tensor")
_LAYER = re.compile(r"layers\.(\d{1,6})\.(.+)")
_OFFSET = 2  # fairseq counts positions from the padding's number, 1, plus one; OPT and XGLM do the same
_PARTS = tuple(
    f"{part}.{kind}"
    for part in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "self_attn_layer_norm",
        "fc1", "fc2", "final_layer_norm",
    )
    for kind in ("weight", "bias")
)  # fmt: skip
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_accurate": "gelu_new", "gelu_fast": "gelu_new", "tanh": "tanh"}
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
_SPAN = 1 << 20  # bytes that are scaled at a time


@dataclass(frozen=True, slots=True)
class Options:
    """What the file may not say: attention heads, the activation's name, whether embeddings are scaled by the root of
    their width, and whether norms come before their blocks. None leaves it to the file."""

    heads: int | None = None
    activation: str | None = None
    scale: bool | None = None
    before: bool | None = None


def fairseq(repository: Repository, path: str, options: Options, dictionary: str | None = None) -> str:
    """Commit a fairseq language model as the seed; returns the commit. ``dictionary`` is its ``dict.txt``.

    Raises ``ThetaError`` for what is no such model, or one that neither OPT nor XGLM can be.
    """
    title = f"Seed from {os.path.basename(path)}"
    return seed(repository, lambda folder: convert(path, folder, options, dictionary), title)


def convert(path: str, folder: str, options: Options, dictionary: str | None = None) -> None:
    """Write a fairseq language model to an empty folder as Hugging Face has it. Raises as above."""
    with ExitStack() as stack:
        found = tensors(path, stack)
        model = {name.removeprefix(_PREFIX): item for name, item in found.items() if name.startswith(_PREFIX)}
        if _EMBED not in model:
            raise ThetaError(f"{path} has no {_PREFIX}{_EMBED}: it is no language model of fairseq")
        decoder = Decoder(model, _arguments(path), options)
        write_model(folder, decoder.config(), decoder.contents())
    if dictionary is not None:
        for name, content in of_dictionary(_text(dictionary), decoder.vocabulary).items():
            with open(os.path.join(folder, name), "x", encoding="utf-8") as out:
                out.write(content)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise ThetaError(f"{path} is no dictionary: it is not in UTF-8") from None


def _arguments(path: str) -> Mapping[str, Any]:
    """What the file says; nothing if it is of another format, in which somebody put the same tensors."""
    with open(path, "rb", buffering=0) as file, suppress(FormatError):
        return arguments(FileSource(file.fileno()))
    return {}


class Decoder:
    """A decoder by its tensors, which are named from ``model.decoder.`` on, and its arguments."""

    def __init__(self, model: Contents, told: Mapping[str, Any], options: Options) -> None:
        self._model, self._told = model, told
        self.vocabulary, self.width = _shape(model, _EMBED, 2)
        self.learned = _POSITIONS in model
        self.layers = self._count()
        self.heads = int(self._said(options.heads, "decoder_attention_heads", "--heads N"))
        self.activation = self._activation(options)
        unscaled = None if options.scale is None else not options.scale
        self.scale = 1.0 if self._said(unscaled, "no_scale_embedding", "--scale or --no-scale") else sqrt(self.width)
        self.before = bool(self._said(options.before, "decoder_normalize_before", "--norm-before or --norm-after"))
        self.normed = f"{_NORM}weight" in model
        self.tied = self._tied()
        self._check()

    def _said(self, option: Any, name: str, hint: str) -> Any:
        if option is not None:
            return option
        if not isinstance(self._told.get(name), int):
            raise ThetaError(f"the file does not say {name}: add {hint}")
        return self._told[name]

    def _activation(self, options: Options) -> str:
        name = options.activation or self._told.get("activation_fn", "relu")  # fairseq's own default
        if name not in _ACTIVATIONS:
            raise ThetaError(f"the activation {str(name)[:40]!r} is none of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[name]

    def _count(self) -> int:
        numbers = {int(found[1]) for name in self._model if (found := _LAYER.fullmatch(name))}
        if numbers != set(range(len(numbers))):
            raise ThetaError("layers are missing in the file")
        return len(numbers)

    def _tied(self) -> bool:
        """Whether the head is the embeddings: the same memory, or the same bytes."""
        head = next((name for name in _HEADS if name in self._model), None)
        if head is None:
            return True
        (one, left), (other, right) = self._model[_EMBED], self._model[head]
        return one == other and _same(left, right)

    def _check(self) -> None:
        """Raise ``ThetaError`` unless a Hugging Face model computes what this one does."""
        known = {_EMBED, _POSITIONS, *_HEADS, *_IGNORED, f"{_NORM}weight", f"{_NORM}bias"}
        parts = {*_PARTS, "self_attn.in_proj_weight", "self_attn.in_proj_bias"}
        for name in self._model:
            found = _LAYER.fullmatch(name)
            if name not in known and not (found and found[2] in parts):
                raise ThetaError(f"{_PREFIX}{name} has no place in the models that fairseq's decoders become here")
        if self.heads < 1 or self.width % self.heads:
            raise ThetaError(f"{self.width} dimensions cannot be divided among {self.heads} heads")
        if not self.learned and self._told.get("no_token_positional_embeddings"):
            raise ThetaError("a model without positions: neither OPT nor XGLM is one")
        if not self.learned and not (self.before and self.normed):
            raise ThetaError("sinusoidal positions need norms before each block and one at the end, as XGLM has them")
        if self.normed and not self.before:
            raise ThetaError("a norm at the end, and none before each block: neither OPT nor XGLM has that")

    # -- what it becomes ---------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """The configuration."""
        inner = _shape(self._model, "layers.0.fc1.weight", 2)[0] if self.layers else 4 * self.width
        dropouts = {name: float(self._told.get(name) or 0) for name in ("dropout", "attention_dropout")}
        common = {
            "vocab_size": self.vocabulary, "ffn_dim": inner, "activation_function": self.activation,
            "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "layerdrop": 0.0, **dropouts,
            "dtype": _DTYPES.get(self._model[_EMBED][0].dtype.name, "float32"),
        }  # fmt: skip
        return common | (self._opt() if self.learned else self._xglm())

    def _opt(self) -> dict[str, Any]:
        return {
            "model_type": "opt", "architectures": ["OPTForCausalLM"], "hidden_size": self.width,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "word_embed_proj_dim": self.width,
            "max_position_embeddings": _shape(self._model, _POSITIONS, 2)[0] - _OFFSET,
            "do_layer_norm_before": self.before, "_remove_final_layer_norm": self.before and not self.normed,
            "tie_word_embeddings": self.tied and self.scale == 1,
        }  # fmt: skip

    def _xglm(self) -> dict[str, Any]:
        positions = self._told.get("max_target_positions") or self._told.get("tokens_per_sample") or 1024
        return {
            "model_type": "xglm", "architectures": ["XGLMForCausalLM"], "d_model": self.width,
            "num_layers": self.layers, "attention_heads": self.heads, "max_position_embeddings": int(positions),
            "activation_dropout": 0.0, "scale_embedding": self.scale != 1, "tie_word_embeddings": self.tied,
        }  # fmt: skip

    def contents(self) -> Contents:
        """The tensors by their new names."""
        return dict(self._opt_tensors() if self.learned else self._xglm_tensors())

    def _opt_tensors(self) -> Iterator[tuple[str, tuple[Tensor, Content]]]:
        """OPT does not scale embeddings: they are scaled here, and the head, which is not, has a table of its own."""
        tensor, content = self._model[_EMBED]
        if self.scale != 1:
            content = partial(_scaled, content, tensor, self.scale)
        yield "model.decoder.embed_tokens.weight", (tensor, content)
        yield "model.decoder.embed_positions.weight", self._model[_POSITIONS]
        if not (self.tied and self.scale == 1):
            yield "lm_head.weight", self._head()
        yield from self._blocks("model.decoder.")
        if self.normed:
            for kind in ("weight", "bias"):
                yield f"model.decoder.final_layer_norm.{kind}", self._model[_NORM + kind]

    def _xglm_tensors(self) -> Iterator[tuple[str, tuple[Tensor, Content]]]:
        yield "model.embed_tokens.weight", self._model[_EMBED]
        if not self.tied:
            yield "lm_head.weight", self._head()
        yield from self._blocks("model.")
        for kind in ("weight", "bias"):
            yield f"model.layer_norm.{kind}", self._model[_NORM + kind]

    def _head(self) -> tuple[Tensor, Content]:
        return self._model[next((name for name in _HEADS if name in self._model), _EMBED)]

    def _blocks(self, prefix: str) -> Iterator[tuple[str, tuple[Tensor, Content]]]:
        for number in range(self.layers):
            for part in _PARTS:
                yield f"{prefix}layers.{number}.{part}", self._part(number, part)

    def _part(self, number: int, part: str) -> tuple[Tensor, Content]:
        name = f"layers.{number}.{part}"
        if name in self._model:
            return self._model[name]
        kind = part.rpartition(".")[2]
        joined = f"layers.{number}.self_attn.in_proj_{kind}"
        which = next((i for i, word in enumerate(("q_proj", "k_proj", "v_proj")) if word in part), None)
        if which is None or joined not in self._model:
            raise ThetaError(f"{_PREFIX}{name} is missing")
        return _third(self._model[joined], which, joined)


def _third(item: tuple[Tensor, Content], which: int, name: str) -> tuple[Tensor, Content]:
    """A third of the rows: fairseq before 0.9 had the projections of query, key and value in one table."""
    tensor, content = item
    if callable(content) or tensor.shape[0] % 3:
        raise ThetaError(f"{_PREFIX}{name} is {tensor}: not three tables, one after the other")
    part = Tensor(tensor.dtype, (tensor.shape[0] // 3, *tensor.shape[1:]))
    return part, Part(content, which * part.nbytes, part.nbytes)


def _shape(model: Contents, name: str, count: int) -> tuple[int, ...]:
    if name not in model or len(model[name][0].shape) != count:
        raise ThetaError(f"{_PREFIX}{name} is missing, or has not {count} dimensions")
    return model[name][0].shape


def _same(one: Content, other: Content) -> bool:
    if callable(one) or callable(other):
        return False
    size = one.size
    parts = ((at, min(_SPAN, size - at)) for at in range(0, size, _SPAN))
    return size == other.size and all(one.read(*part) == other.read(*part) for part in parts)


def _scaled(content: Content, tensor: Tensor, scale: float) -> Iterator[bytes]:
    """A table times a number, rounded once. Raises ``FormatError`` if its elements are no floating-point numbers."""
    import numpy as np

    from ..floats import narrow, widen
    from ..planes import TYPES

    kind = tensor.dtype.name
    blocks = content() if callable(content) else _read(content)
    for block in blocks:
        yield narrow(widen(np.frombuffer(block, TYPES[tensor.dtype.size]), kind) * scale, kind).tobytes()


def _read(source: Source) -> Iterator[bytes]:
    for at in range(0, source.size, _SPAN):
        yield source.read(at, min(_SPAN, source.size - at))

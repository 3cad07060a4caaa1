"""Models: made from a preset, or read from a commit without a checkout."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..api import Checkpoint
from ..errors import ThetaError
from ..manifest import Digest, Entry, Manifest, loads
from ..repository import Repository, read_manifest
from ..source import BytesSource
from ..tensor import Tensor
from . import adapting
from .adapting import Adapter
from .places import ADAPTER, MODEL

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ..adapters.edits import Recipe

BYTES = 256 + 2  # every byte, the end of a text, and padding
# Layers, width, heads. Small enough for a laptop; anything bigger is a folder of Hugging Face's.
PRESETS = {"tiny-gpt2": (2, 64, 2), "mini-gpt2": (4, 128, 4), "small-gpt2": (6, 256, 8)}
_CONFIG, _WEIGHTS = "config.json", ".safetensors"
_LONGEST = 1 << 20  # bytes of a configuration: the tree may be anybody's


def create(name: str, vocabulary: int, block: int, seed: int) -> PreTrainedModel:
    """A model with random weights: a preset's, or that of a folder's ``config.json``. Raises ``ThetaError``."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

    torch.manual_seed(seed)
    if name in PRESETS:
        layers, width, heads = PRESETS[name]
        config: Any = GPT2Config(
            vocab_size=vocabulary, n_positions=max(block, 1024), n_layer=layers, n_embd=width, n_head=heads,
            bos_token_id=256, eos_token_id=256, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
    elif os.path.isfile(os.path.join(name, _CONFIG)):
        config = AutoConfig.from_pretrained(name)
    else:
        raise ThetaError(_neither(name))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model


def named(root: str, name: str) -> str:
    """What ``btm.toml`` calls the model: a folder from ``root``, if there is one, or the name as it stands."""
    place = os.path.join(root, name)
    return place if os.path.isdir(place) else name


def check_named(root: str, name: str) -> None:
    """Raise ``ThetaError`` unless it is a preset, or a folder whose ``config.json`` says what kind of model it is."""
    path = os.path.join(named(root, name), _CONFIG)
    if name in PRESETS:
        return
    if not os.path.isfile(path):
        raise ThetaError(_neither(name))
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_LONGEST))
    except (ValueError, RecursionError):
        raise ThetaError(f"{path} is no JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise ThetaError(f"{path} has no model_type: it is no configuration of a model that transformers knows")


def _neither(name: str) -> str:
    return f"{name!r} is neither a preset ({', '.join(PRESETS)}) nor a folder with a {_CONFIG}"


class ModelAt:
    """The model of one commit, with an adapter that is not applied yet: read parameter by parameter from the store."""

    def __init__(self, repository: Repository, revision: str) -> None:
        self._repository, self.revision = repository, revision
        folders = (f"{MODEL}/", f"{ADAPTER}/")
        rows = repository.git.fields("ls-tree", "-r", "-z", "--full-tree", revision, "--", *folders, check=False)
        entries = [row.partition("\t") for row in rows]
        self._files = {path: meta.split()[2] for meta, _, path in entries if meta.split()[1] == "blob"}
        if f"{MODEL}/{_CONFIG}" not in self._files:
            raise ThetaError(f"{revision} has no {MODEL}/{_CONFIG}: it is no model of this workflow")

    @property
    def digest(self) -> str:
        """What names these weights on every machine, however they are stored or cut into files, with their config."""
        parts = sorted(
            f"{entry.name} {entry.tensor} {entry.digest}" for shard in self.shards.values() for entry in shard.entries
        )
        more = self.adapter.parts if self.adapter else []
        return Digest.of("\n".join([self._config_text, *parts, *more]).encode())

    @property
    def _config_text(self) -> str:
        return self._texts[f"{MODEL}/{_CONFIG}"].decode()

    @cached_property
    def _texts(self) -> dict[str, bytes]:
        """The configurations and the manifests, by path, through one child of git; nothing else that may be there."""
        found = {}
        with self._repository.git.blobs() as blobs:
            for path, oid in sorted(self._files.items()):
                text = read_manifest(blobs, oid) if path.endswith(_WEIGHTS) else None
                if path in (f"{MODEL}/{_CONFIG}", adapting.CONFIG):
                    text = blobs.read(oid, limit=_LONGEST)
                if text is not None:
                    found[path] = text
        return found

    @cached_property
    def shards(self) -> dict[str, Manifest]:
        """The files of weights, by path. Raises ``ThetaError`` if there are none, or git holds one as it is."""
        paths = [path for path in sorted(self._files) if path.startswith(f"{MODEL}/") and path.endswith(_WEIGHTS)]
        if not paths:
            raise ThetaError(f"{self.revision} has no {MODEL}/*{_WEIGHTS}")
        for path in paths:
            if path not in self._texts:
                raise ThetaError(f"{path} is not stored parameter by parameter in {self.revision}")
        return {path: loads(self._texts[path]) for path in paths}

    @cached_property
    def adapter(self) -> Adapter | None:
        """The adapter that is not in the files of weights yet. Raises ``ThetaError`` if that cannot be told."""
        text = self._texts.get(adapting.FACTORS)
        try:
            return adapting.unapplied(self._texts, loads(text) if text else None, self.shards.values())
        except ThetaError as error:
            raise ThetaError(f"{self.revision}: {error}") from None

    @property
    def entries(self) -> dict[str, Entry]:
        """The parameters by their names."""
        return {entry.name: entry for shard in self.shards.values() for entry in shard.entries}

    def state(self, *, adapted: bool = True) -> dict[str, torch.Tensor]:
        """All parameters, each compared with its digest; with the adapter, or as the files have them.

        Raises ``ObjectError`` for one that is missing or corrupt, ``ThetaError`` for an adapter that does not fit.
        """
        store = self._repository.store
        recipes: dict[str, Recipe] = {}
        if adapted and self.adapter:
            recipes = self.adapter.recipes(self.entries, store)
        found: dict[str, torch.Tensor] = {}
        for shard in self.shards.values():
            checkpoint = Checkpoint(shard, store)
            for name, entry in checkpoint.entries.items():
                data = checkpoint.raw(name)
                if name in recipes:
                    new = recipes[name].value(BytesSource(data))
                    data = new.read(0, new.size)
                found[name] = tensor_of(name, data, entry.tensor)
        return found

    def model(self, state: Mapping[str, torch.Tensor] | None = None) -> PreTrainedModel:
        """The model, to be evaluated or trained on, or with another ``state``. Raises ``ThetaError`` as above."""
        from transformers import AutoConfig, AutoModelForCausalLM

        with TemporaryDirectory() as directory:
            with open(os.path.join(directory, _CONFIG), "w", encoding="utf-8") as file:
                file.write(self._config_text)
            config = AutoConfig.from_pretrained(directory)
        options = {"dtype": config.dtype} if getattr(config, "dtype", None) else {}
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **options)  # type: ignore[no-untyped-call]
        missing, unexpected = model.load_state_dict(self.state() if state is None else dict(state), strict=False)
        tied = set(getattr(model, "_tied_weights_keys", None) or ())
        if unexpected or set(missing) - tied:
            wrong = [*unexpected, *sorted(set(missing) - tied)]
            raise ThetaError(f"{self.revision}: the weights do not fit {_CONFIG}: {wrong[0]}")
        model.tie_weights()
        model.eval()  # type: ignore[no-untyped-call]
        return model


_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def tensor_of(name: str, data: bytes, tensor: Tensor) -> torch.Tensor:
    """The bytes of a parameter as torch has them. Raises ``ThetaError`` for a type that no model is run in."""
    import torch

    kind = _TORCH.get(tensor.dtype.name)
    if kind is None:
        raise ThetaError(f"{name} is {tensor.dtype.name}, which no model is run in")
    dtype = getattr(torch, kind)
    flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(tensor.shape)

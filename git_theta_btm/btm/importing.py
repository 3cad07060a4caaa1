"""Importing: a model that was trained elsewhere becomes the seed, as a commit on this branch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from functools import partial
from typing import TypeAlias

from ..arrays import array
from ..errors import ThetaError
from ..merging.folders import CONFIG, INDEX, read_model
from ..merging.folders import WEIGHTS as FILE
from ..remaking import Content, new_folder, save_safetensors
from ..repository import Repository
from ..setup.attributes import FILE as ATTRIBUTES
from ..setup.attributes import track
from ..source import Source
from ..tensor import Tensor
from .experts import Checkpoint
from .opening import open_model
from .places import MODEL, PATTERNS, SETTINGS
from .settings import load, write

Fill: TypeAlias = Callable[[str], object]  # puts a model's files into an empty folder

# All of a folder that is neither weights nor code: its configuration, its tokenizer, what it says about itself.
_KEPT = ("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "README.md", "LICENSE*")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken", "*.model")
_LARGEST = 64 << 20  # bytes of a file beside the weights
_MODE = 0o644


def huggingface(repository: Repository, folder: str) -> str:
    """Commit the model in a folder that ``save_pretrained`` wrote as the seed; returns the commit.

    Weights in several files, or pickled, become one safetensors file; nothing is unpickled. Raises ``ThetaError`` if
    the folder has no model, or the repository one already.
    """
    name = os.path.basename(os.path.abspath(folder))
    return seed(repository, lambda target: _copy(folder, target), f"Seed from {name}")


def seed(repository: Repository, fill: Fill, title: str) -> str:
    """Commit the files that ``fill`` makes as the model of step 0, with a tokenizer's files as the tokenizer.

    Raises ``ThetaError`` if there is a model already, and nothing has changed then.
    """
    root = repository.worktree()
    load(root)
    if not repository.git.configured("filter.theta.clean"):
        raise ThetaError("git theta is not installed for this repository: 'git theta install --local' does it")
    repository.git.run("var", "GIT_COMMITTER_IDENT")  # says so now, and not after gigabytes, if git knows no user
    track(Repository(root), PATTERNS)  # it writes to the file of the directory that it is given
    with new_folder(os.path.join(root, MODEL)) as folder:
        fill(folder)
        os.chmod(folder, 0o755)
        tokenizer = any(fnmatch(name, pattern) for name in os.listdir(folder) for pattern in _TOKENIZERS)
    write(root, {"model": MODEL, **({"text": {"tokenizer": MODEL}} if tokenizer else {})})
    paths = (MODEL, SETTINGS, ATTRIBUTES)
    message = f"{title}\n\n{Checkpoint('', 0, 0).trailers()}"
    repository.git.run("add", "--", *paths)
    repository.git.run("commit", "--quiet", "--message", message, "--", *paths)
    return repository.git.text("rev-parse", "HEAD")


def _copy(folder: str, target: str) -> None:
    if not os.path.isfile(os.path.join(folder, CONFIG)):
        raise ThetaError(f"{folder} has no {CONFIG}: a model is a folder that save_pretrained wrote")
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        kept = any(fnmatch(name, pattern) for pattern in _KEPT) and not name.endswith(".index.json")
        if kept and os.path.isfile(path) and os.path.getsize(path) <= _LARGEST:
            shutil.copyfile(path, os.path.join(target, name))
    weights = os.path.join(target, FILE)
    if os.path.isfile(os.path.join(folder, FILE)):
        shutil.copyfile(os.path.join(folder, FILE), weights)
        os.chmod(weights, _MODE)
    elif os.path.isfile(os.path.join(folder, INDEX)):
        save_safetensors(weights, read_model(folder).tensors, {"format": "pt"}, _MODE)
    else:
        _convert(folder, weights)


def _convert(folder: str, weights: str) -> None:
    """Write the weights of ``pytorch_model*.bin`` as safetensors."""
    files = [name for name in sorted(os.listdir(folder)) if fnmatch(name, "pytorch_model*.bin")]
    if not files:
        raise ThetaError(f"{folder} has neither {FILE} nor pytorch_model.bin")
    with ExitStack() as stack:
        contents: dict[str, tuple[Tensor, Content]] = {}
        for name in files:
            contents |= tensors(os.path.join(folder, name), stack)
        save_safetensors(weights, contents, {"format": "pt"}, _MODE)


def tensors(path: str, stack: ExitStack) -> dict[str, tuple[Tensor, Content]]:
    """The tensors of a checkpoint file, row after row; the stack closes it. Raises ``ThetaError``."""
    checkpoint = open_model(path, stack).checkpoint
    found: dict[str, tuple[Tensor, Content]] = {}
    for name, entry in checkpoint.entries.items():
        source = stack.enter_context(checkpoint.source(name))
        plain = Tensor(entry.tensor.dtype, entry.tensor.shape)
        found[name] = plain, source if entry.tensor.strides is None else partial(_rows, source, entry.tensor)
    return found


def _rows(source: Source, tensor: Tensor) -> Iterator[bytes]:
    """The elements in order of a tensor that has them in another order in memory."""
    yield array(source.read(0, source.size), tensor).tobytes()

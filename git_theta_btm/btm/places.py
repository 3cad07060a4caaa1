"""Where everything stands in a repository of experts."""

from __future__ import annotations

import os

SETTINGS = "btm.toml"
MODEL = "model"  # a Hugging Face folder: config.json, *.safetensors, the tokenizer's files
WEIGHTS = "model/model.safetensors"
ADAPTER = "adapter"  # a PEFT folder, of an expert that was trained as one
TRAINING = "training"  # optimizer.pt, scheduler.pt, rng_state.pth, trainer_state.json: droppable, and apart
DATA = "data"  # data/<domain>/<split>.jsonl, one document a line: {"text": ...}
PRIORS = "priors"  # priors/<name>.json
ENSEMBLES = "ensembles"  # ensembles/<name>.json
SPLITS = ("train", "valid", "test")

# What git theta tracks here. Text is stored in chunks, so that a domain adds its own bytes and no others.
PATTERNS = ("model/*.safetensors", "adapter/*.safetensors", "training/*.pt", "training/*.pth", "data/**/*.jsonl")


def text(domain: str, split: str) -> str:
    """The file of one split of a domain, from the root of the worktree."""
    return f"{DATA}/{domain}/{split}.jsonl"


def private(common: str, *names: str) -> str:
    """A place in the Git directory for what is derived, and never committed: caches, worktrees, logs of runs."""
    return os.path.join(common, "btm", *names)


# The state of an optimizer belongs to one training: a merge has nothing to mix there.
KEPT = f"{TRAINING}/** merge=theta-ours"

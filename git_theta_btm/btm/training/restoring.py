"""Restoring: a checkpoint of a commit as the folder that transformers resumes from, and the other way round.

transformers has all files in one folder; a commit has the model, the state of the training and an adapter apart, so
that each can be left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from fnmatch import fnmatchcase

from ...catalogue import open_catalogue
from ...filters.smudge import smudge
from ...manifest import Manifest, is_manifest, loads
from ...merging.filing import Desk
from ...repository import Repository, read_manifest
from ...source import write_all
from ..places import ADAPTER, MODEL, TRAINING

OPTIMIZER = "optimizer.pt"
SCHEDULER = "scheduler.pt"
STATE = "trainer_state.json"
_TRAINING = (OPTIMIZER, SCHEDULER, STATE, "rng_state*.pth", "scaler.pt")
_ADAPTER = ("adapter_*",)
# Pickles of objects, which nobody should have to load, and what describes files that are described already.
_LEFT_OUT = ("training_args.bin", "README.md", "*.marker")


def place(file: str) -> str | None:
    """Where a file of a checkpoint folder stands in a commit; None if it is left out."""
    for patterns, folder in ((_LEFT_OUT, None), (_TRAINING, TRAINING), (_ADAPTER, ADAPTER)):
        if any(fnmatchcase(file, pattern) for pattern in patterns):
            return f"{folder}/{file}" if folder else None
    return f"{MODEL}/{file}"


def files(folder: str, *, training: bool = True) -> dict[str, str]:
    """The files of a checkpoint folder by their paths in a commit."""
    found = {}
    for file in sorted(os.listdir(folder)):
        path = place(file)
        if path and os.path.isfile(os.path.join(folder, file)) and (training or not path.startswith(f"{TRAINING}/")):
            found[path] = os.path.join(folder, file)
    return found


def blobs(repository: Repository, commit: str, *folders: str) -> dict[str, str]:
    """git's names of the files in folders of a commit, by their paths."""
    rows = repository.git.fields("ls-tree", "-r", "-z", "--full-tree", commit, "--", *folders, check=False)
    split = [row.partition("\t") for row in rows]
    return {path: meta.split()[2] for meta, _, path in split if meta.split()[1] == "blob"}


def restore(repository: Repository, wanted: Mapping[str, str], folder: str) -> None:
    """Write blobs, by paths of a commit, into one folder; those of models as the files they stand for.

    Objects that are not here are fetched. Raises ``ObjectError`` for one that cannot be had, or is corrupt.
    """
    os.makedirs(folder, exist_ok=True)
    manifests: dict[str, Manifest] = {}
    for path, oid in wanted.items():
        text = repository.git.blob(oid)
        target = os.path.join(folder, os.path.basename(path))
        if is_manifest(text):
            manifests[target] = loads(text)
        else:
            with open(target, "wb") as file:
                file.write(text)
    with Desk(repository) as desk:
        desk.gather(manifests.values())
    with closing(open_catalogue(repository.store.root)) as catalogue:
        for target, manifest in manifests.items():
            out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                smudge(manifest, repository.store, catalogue)(out)
            finally:
                os.close(out)


def write_durable(path: str, data: bytes) -> None:
    """Write a file that is there whole or not at all, also after a loss of power."""
    temporary = f"{path}.{os.getpid()}"
    out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(out, data)
        os.fsync(out)
    finally:
        os.close(out)
    os.replace(temporary, path)


def base_digests(repository: Repository, commit: str, folder: str = MODEL) -> list[str]:
    """The digests of the model in a folder of a commit, one for each of its files; none of a model without a commit."""
    wanted = blobs(repository, commit, f"{folder}/") if commit else {}
    with repository.git.blobs() as reader:
        texts = [read_manifest(reader, oid) for path, oid in sorted(wanted.items()) if path.endswith(".safetensors")]
    return [str(loads(text).digest) for text in texts if text is not None]


def bind(path: str, digests: Sequence[str], out: str) -> None:
    """Write the configuration of an adapter to ``out`` with the model that it is for, and without where that stood."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    name = config.get("base_model_name_or_path")
    here = not name or os.path.isabs(name) or os.path.isdir(name)
    config |= {"theta_base": digests[0] if len(digests) == 1 else list(digests)}
    config |= {"base_model_name_or_path": None if here else name}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2, sort_keys=True)

"""Pending: how a merge was made, kept until it is committed, when the hook puts it into the message."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from ..git import Git
from . import trailers
from .trailers import Record

_NAME = "THETA_MERGE"  # beside MERGE_HEAD


def _path(git: Git, name: str) -> str:
    return os.path.join(git.directory, git.text("rev-parse", "--git-path", name))


def write(git: Git, record: Record, heads: Sequence[str], blobs: Iterable[str] = ()) -> None:
    """Keep the record of a merge of these commits, HEAD first, in the place of an earlier one.

    ``blobs`` are the manifests that it made: it is true as long as one of them, if any are named, is to be committed.
    """
    kept = _read(git)
    known = kept.get("blobs", []) if kept.get("heads") == list(heads) else []  # a driver is run once for each file
    text = json.dumps(
        {"heads": list(heads), "blobs": list(dict.fromkeys([*known, *blobs])), "trailers": trailers.dumps(record)}
    )
    temporary = f"{_path(git, _NAME)}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.replace(temporary, _path(git, _NAME))


def take(git: Git) -> list[str]:
    """The trailers of the merge that is being committed; none if it is another one than the record is about."""
    kept = _read(git)
    head = git.run("rev-parse", "--verify", "--quiet", "HEAD", check=False).stdout.decode().strip()
    if not kept or kept.get("heads") != [head, *merging(git)]:
        return []
    blobs, lines = kept.get("blobs") or [], kept.get("trailers") or []
    if blobs:
        staged = {field.split()[1] for field in git.fields("ls-files", "-s", "-z")}
        if staged.isdisjoint(blobs):
            return []
    return [str(line) for line in lines]


def left(git: Git) -> tuple[list[str], list[str]]:
    """The commits that the record is about, HEAD first, and its trailers, whatever has become of the merge."""
    kept = _read(git)
    return [str(head) for head in kept.get("heads") or []], [str(line) for line in kept.get("trailers") or []]


def merging(git: Git) -> list[str]:
    """The commits that are being merged into HEAD; none unless a merge is going on."""
    try:
        with open(_path(git, "MERGE_HEAD"), encoding="ascii") as file:
            return file.read().split()
    except (OSError, ValueError):
        return []


def _read(git: Git) -> dict[str, Any]:
    try:
        with open(_path(git, _NAME), encoding="utf-8", errors="surrogateescape") as file:
            kept = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def forget(git: Git) -> None:
    """Drop the record."""
    with suppress(FileNotFoundError):
        os.unlink(_path(git, _NAME))

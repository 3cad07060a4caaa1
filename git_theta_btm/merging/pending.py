"""Pending: how a merge was made, kept until it is committed, when the hook puts it into the message."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress

from ..git import Git
from . import trailers
from .trailers import Record

_NAME = "THETA_MERGE"  # beside MERGE_HEAD


def _path(git: Git) -> str:
    return os.path.join(git.directory, git.text("rev-parse", "--git-path", _NAME))


def write(git: Git, record: Record, heads: Sequence[str]) -> None:
    """Keep the record of a merge of these commits, HEAD first, in the place of an earlier one."""
    text = json.dumps({"heads": list(heads), "trailers": trailers.dumps(record)})
    temporary = f"{_path(git)}.{os.getpid()}"
    with open(temporary, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.replace(temporary, _path(git))


def take(git: Git) -> list[str]:
    """The trailers of the merge that is being committed; none if it is another one than the record is about."""
    try:
        with open(_path(git), encoding="utf-8", errors="surrogateescape") as file:
            kept = json.load(file)
        with open(
            os.path.join(git.directory, git.text("rev-parse", "--git-path", "MERGE_HEAD")), encoding="ascii"
        ) as file:
            heads = [git.text("rev-parse", "HEAD"), *file.read().split()]
        return [str(line) for line in kept["trailers"]] if kept["heads"] == heads else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def forget(git: Git) -> None:
    """Drop the record."""
    with suppress(FileNotFoundError):
        os.unlink(_path(git))

"""Pending: how a merge was made, kept until it is committed, when the hook puts it into the message.

For one file, which is most often all, the hook has its lines ready, and needs nothing that understands them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..git import Git

if TYPE_CHECKING:
    from .records import Record

_NAME = "THETA_MERGE"  # beside MERGE_HEAD


def _path(git: Git, name: str) -> str:
    return os.path.join(git.directory, git.text("rev-parse", "--git-path", name))


def write(git: Git, record: Record, heads: Sequence[str], blobs: Mapping[str, str]) -> None:
    """Keep the record of a merge of these commits, HEAD first, beside what is kept of other files of the same merge.

    ``blobs`` are the manifests that it staged, by their paths: what is kept of a file is true as long as that is to be
    committed.
    """
    from .trailers import dumps

    kept = _read(git)
    files = _files(kept) if kept.get("heads") == list(heads) else {}  # a driver is run once for each file
    for path, oid in blobs.items():
        files[path] = {"blob": oid, "trailers": dumps(record.only(path))}
    temporary = f"{_path(git, _NAME)}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump({"heads": list(heads), "files": files}, file)
    os.replace(temporary, _path(git, _NAME))


def take(git: Git) -> list[str]:
    """The trailers of the merge that is being committed; none if it is another one than the record is about."""
    heads, lines = left(git)
    return lines if heads == [git.oid("HEAD"), *merging(git)] else []


def left(git: Git) -> tuple[list[str], list[str]]:
    """The commits that the record is about, HEAD first, and its trailers, as far as what it made is staged; whatever
    has become of the merge."""
    kept = _read(git)
    files = _files(kept)
    if not files:
        return [], []
    places: dict[str, list[str]] = {}
    for field in git.fields("ls-files", "-s", "-z"):
        meta, _, path = field.partition("\t")
        places.setdefault(meta.split()[1], []).append(path)
    staged = {path: places[file["blob"]] for path, file in files.items() if file["blob"] in places}
    return [str(head) for head in kept["heads"]], _lines(files, staged) if staged else []


def _lines(files: Mapping[str, Any], staged: Mapping[str, Sequence[str]]) -> list[str]:
    """The trailers of all files that are staged somewhere; they may have been renamed."""
    if len(staged) == 1 and all(path in places for path, places in staged.items()):
        return [str(line) for path in staged for line in files[path]["trailers"]]
    from .records import together
    from .trailers import dumps, loads  # 60 ms

    found = {}
    for path, places in staged.items():
        if record := loads("\n\n".join(["merge", "\n".join(files[path]["trailers"])])):
            found[path if path in places else places[0]] = record
    return dumps(together(found)) if found else []


def _files(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of each file; nothing if that is not as it was written."""
    files = kept.get("files")
    if not isinstance(kept.get("heads"), list) or not isinstance(files, dict):
        return {}
    return dict(files) if all(map(_is_file, files.values())) else {}


def _is_file(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("blob"), str) and isinstance(value.get("trailers"), list)


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

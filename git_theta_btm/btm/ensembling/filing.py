"""Small files that are written, staged and committed by themselves, whatever else is staged."""

from __future__ import annotations

import json
import os
from typing import Any

from ...errors import ThetaError
from ...repository import Repository


def write(repository: Repository, path: str, document: Any, message: str, *, commit: bool = True) -> str:
    """Write a document as JSON at a path from the root, stage it, and commit it alone; the commit, or nothing."""
    absolute = repository.absolute(path)
    os.makedirs(os.path.dirname(absolute), exist_ok=True)
    temporary = f"{absolute}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=2) + "\n")
    os.replace(temporary, absolute)
    return record(repository, path, message, commit=commit)


def remove(repository: Repository, path: str, message: str, *, commit: bool = True) -> str:
    """Remove a file from the worktree and the index, and commit that alone; the commit, or nothing."""
    os.unlink(repository.absolute(path))
    return record(repository, path, message, commit=commit)


def record(repository: Repository, path: str, message: str, *, commit: bool = True) -> str:
    """Stage a path as it is, and commit it alone, if it has changed; the commit, or nothing."""
    git = repository.git
    git.run("add", "--all", "--", f":(literal){path}")
    changed = git.run("diff", "--cached", "--quiet", "--", f":(literal){path}", check=False).returncode
    if not commit or not changed:
        return ""
    git.run("commit", "--quiet", "--only", "-m", message, "--", f":(literal){path}")
    return git.text("rev-parse", "HEAD")


def name(text: str, folder: str) -> str:
    """The path of the file of a name, which may have slashes. Raises ``ThetaError`` for one that leads elsewhere."""
    parts = text.split("/")
    if not all(part and not part.startswith(".") for part in parts) or not text.isprintable() or "\\" in text:
        raise ThetaError(f"{text[:80]!r} cannot be the name of a file in {folder}/")
    return f"{folder}/{text}.json"

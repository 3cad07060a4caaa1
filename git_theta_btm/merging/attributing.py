"""Which driver git merges a model with, where ``.gitattributes`` was written by hand and names the filter alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

from ..errors import ThetaError
from ..git import Git
from ..manifest import spell
from ..repository import attributes, read_manifest
from ..setup.attributes import literal
from ..setup.attributes import spell as pattern

_UNSAID = "unspecified"
_OURS = "theta"  # of the driver, and of the filter


@contextmanager
def driven(git: Git, ours: str, theirs: str) -> Iterator[tuple[str, ...]]:
    """Options of git by which models that differ in two commits go to the driver, unless attributes say otherwise.

    They are added to what the user's own file says, which is below every ``.gitattributes``.
    """
    options = ("-r", "-z", "--name-only", "--no-renames")
    paths = git.fields("diff-tree", *options, f"{ours}^{{tree}}", f"{theirs}^{{tree}}", check=False)
    found = attributes(git, paths, "filter", "merge")
    # Of a sparse checkout's attributes git merge-tree sees only those that are in the worktree: git-sparse-checkout(1).
    unseen = (_UNSAID, _OURS) if git.configured("core.sparseCheckout", kind="bool") == "true" else (_UNSAID,)
    bare = [path for path in paths if found[path]["filter"] == _OURS and found[path]["merge"] in unseen]
    if not bare:
        yield ()
        return
    lines = "".join(f"{pattern('/' + literal(path))} merge={_OURS}\n" for path in bare)
    with TemporaryDirectory() as directory:
        name = os.path.join(directory, "attributes")
        with open(name, "wb") as file:
            file.write(_own(git) + b"\n" + os.fsencode(lines))
        yield ("-c", f"core.attributesFile={name}")


def _own(git: Git) -> bytes:
    """The user's own attributes. Reference: gitattributes(5)."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = git.configured("core.attributesFile", kind="path") or os.path.join(home, "git", "attributes")
    with suppress(OSError), open(os.path.join(git.directory, path), "rb") as file:
        return file.read()
    return b""


def refuse_text_merges(git: Git, conflicts: Mapping[str, Sequence[str]]) -> None:
    """Raise ``ThetaError`` if one of these paths, with the blobs that both sides have there, is a model that another
    driver than ours has merged: the lines of two manifests, mixed, are no model."""
    for path, found in attributes(git, list(conflicts), "filter", "merge").items():
        if found["merge"] == _OURS or (found["merge"], found["filter"]) == (_UNSAID, _OURS):
            continue
        with git.blobs() as reader:
            model = any(read_manifest(reader, oid) is not None for oid in conflicts[path])
        if model:
            remedy = f"'git theta track {shlex.quote(path)}' has it merged as a model"
            raise ThetaError(f"{spell(path)} would be merged as text: {remedy}")

"""By hand: the sides of a conflict as files beside the model, and a file that a person made of them as the result."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress

from ..errors import ThetaError
from ..filters.session import stat_key
from ..filters.smudge import smudge
from ..manifest import Manifest, spell
from ..repository import Repository, read_stub
from ..store import Forgetful
from .filing import Desk
from .unmerged import SIDES, Stages

_NAME = "THETA_RESOLVE"  # beside MERGE_HEAD

Notes = dict[str, dict[str, str]]  # by path and blobs: the files that were written, and their states


def laid_out(repository: Repository, item: Stages) -> bool:
    """Whether this conflict's sides were laid out before."""
    return _key(item) in _read(repository)


def lay_out(repository: Repository, items: Sequence[Stages], desk: Desk) -> list[str]:
    """Write every side of every file beside it; returns the paths, from the root of the worktree.

    Raises ``ThetaError`` if a file of such a name is there, or an object is not; nothing is left behind then.
    """
    wanted = [
        (item, side, manifest) for item in items for side in SIDES if (manifest := item.manifests.get(SIDES[side]))
    ]
    desk.gather(manifest for _, _, manifest in wanted)
    notes, written = _read(repository), list[str]()
    try:
        for item, side, manifest in wanted:
            path = _beside(item.path, side)
            state = _write(repository, path, manifest)
            written.append(path)
            notes.setdefault(_key(item), {})[path] = state
        _keep(repository, notes)
    except BaseException:
        for path in written:
            os.unlink(repository.absolute(path))
        raise
    return written


def _beside(path: str, side: str) -> str:
    root, extension = os.path.splitext(path)
    return f"{root}.{side}{extension}"


def _write(repository: Repository, path: str, manifest: Manifest) -> str:
    """Write one version as a new file; returns its state."""
    absolute = repository.absolute(path)
    pour = smudge(manifest, repository.store, Forgetful())
    try:
        fd = os.open(absolute, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise ThetaError(f"{spell(path)} is in the way: move it, or remove it") from None
    try:
        pour(fd)
        return stat_key(os.fstat(fd))
    except BaseException:
        os.unlink(absolute)
        raise
    finally:
        os.close(fd)


def take(repository: Repository, item: Stages, source: str | None = None) -> list[str]:
    """Stage the file in the worktree, or first a copy of ``source`` in its place, as the result. The files that were
    laid out are removed; those that have changed since are left, and returned.

    Raises ``ThetaError`` if there is no such file, or a stub in its place.
    """
    absolute = repository.absolute(item.path)
    given = absolute if source is None else os.path.join(repository.here.directory, source)
    if not os.path.isfile(given) or os.path.islink(absolute):
        raise ThetaError(f"{spell(source or item.path)} is no file that could be the result")
    if read_stub(given) is not None:
        raise ThetaError(f"{spell(source or item.path)} is a stub: 'git theta pull' writes the model first")
    if given != absolute:
        _copy(given, absolute)
    repository.git.run("add", "--", f":(top,literal){item.path}")
    return _clear(repository, item)


def _copy(source: str, target: str) -> None:
    """Put a copy in the place of a file, whole or not at all."""
    temporary = f"{target}.{os.urandom(8).hex()}.theta"
    try:
        shutil.copyfile(source, temporary)
        with suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _clear(repository: Repository, item: Stages) -> list[str]:
    """Remove what was laid out; returns what is left as it was changed."""
    notes = _read(repository)
    left = []
    for path, state in notes.pop(_key(item), {}).items():
        absolute = repository.absolute(path)
        with suppress(FileNotFoundError):
            if stat_key(os.lstat(absolute)) == state:
                os.unlink(absolute)
            else:
                left.append(path)
    _keep(repository, notes)
    return left


# -- notes -------------------------------------------------------------------------------------------------------------


def _key(item: Stages) -> str:
    return "\t".join([item.path, *(oid for _, (_, oid) in sorted(item.rows.items()))])


def _path(repository: Repository) -> str:
    return os.path.join(repository.git.directory, repository.git.text("rev-parse", "--git-path", _NAME))


def _read(repository: Repository) -> Notes:
    try:
        with open(_path(repository), encoding="utf-8", errors="surrogateescape") as file:
            notes = json.load(file)
        return {str(key): {str(path): str(state) for path, state in value.items()} for key, value in notes.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _keep(repository: Repository, notes: Notes) -> None:
    path = _path(repository)
    if not notes:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    with open(f"{path}.{os.getpid()}", "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(notes, file)
    os.replace(f"{path}.{os.getpid()}", path)

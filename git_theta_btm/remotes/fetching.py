"""A fetch: the objects of model files, or of some of their parameters, come from whichever remote has them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from threading import Thread

from ..errors import ManifestError, ThetaError, UsageError
from ..git import Git
from ..manifest import Blob
from ..repository import ModelFile, Repository
from . import hooks, keeping
from .transfer import Port, Received, needs_of, receive, remotes


def wanted(models: Iterable[ModelFile], parameters: Sequence[str] = ()) -> list[Blob]:
    """The objects of these files; of some parameters alone if there are patterns. Broken manifests need nothing.

    Raises ``ThetaError`` if there are patterns and no parameter matches one.
    """
    blobs: dict[Blob, None] = {}
    for model in models:
        with suppress(ManifestError):
            blobs |= dict.fromkeys(needs_of(model.manifest, parameters) if model.manifest else ())
    if parameters and not blobs:
        raise ThetaError(f"no parameter matches {' or '.join(parameters)}")
    return list(blobs)


def remote_of(repository: Repository, word: str, command: str) -> str:
    """The remote that a person means: by its name, its URL, or the path of a repository from the user's directory.

    Raises ``UsageError``, with the ``command`` to type instead, if it is none of these.
    """
    git = repository.here
    known = remotes(git)
    if word in known or git.text("ls-remote", "--get-url", "--", word) != word:  # the latter is short for a URL
        return word
    path = os.path.abspath(os.path.join(git.directory, word))  # git itself would begin at the root of the worktree
    if os.path.exists(path) and git.run("ls-remote", "--quiet", "--", path, "HEAD", check=False).returncode == 0:
        return path
    remote = next(iter(known), "REMOTE")
    for name in (word, f"{remote}/{word}"):
        if git.oid(name):
            raise UsageError(f"{word!r} is no remote but a revision: git theta {command} {remote} {name}")
    if ":" not in word:
        raise UsageError(f"{word!r} is no remote, which 'git remote' lists, and no repository")
    return word


def fetch(port: Port, blobs: Iterable[Blob], *first: str) -> Received:
    """Get what is not here, from ``first`` of all remotes. Raises ``ThetaError`` if git-lfs is needed and not there."""
    missing = [blob for blob in blobs if not port.has(blob)]
    if not missing:
        return Received(0)
    named = remotes(port.git, *first)
    meanwhile = Thread(target=_follow, args=(port.git, named[:1]), daemon=True)
    meanwhile.start()
    try:
        return receive(port, missing, named)
    finally:
        meanwhile.join()


def _follow(git: Git, remotes: Iterable[str]) -> None:
    """What a clone made by git alone lacks: the refspec of keep refs, and the hooks."""
    for remote in remotes:
        keeping.follow(git, remote)
    hooks.install(git)

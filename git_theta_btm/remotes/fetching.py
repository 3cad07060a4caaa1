"""A fetch: the objects of model files, or of some of their parameters, come from whichever remote has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from threading import Thread

from ..errors import ManifestError, ThetaError
from ..git import Git
from ..manifest import Blob
from ..repository import ModelFile
from . import keeping
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
    for remote in remotes:
        keeping.follow(git, remote)

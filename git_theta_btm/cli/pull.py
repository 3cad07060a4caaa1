"""``git theta pull``."""

from __future__ import annotations

import click

from ..checkout.worktree import materialise
from ..errors import ManifestError
from ..remotes.fetching import fetch, wanted
from ..remotes.hooks import install
from ..remotes.transfer import opened
from ..repository import ModelFile, Repository
from .console import Meter
from .fetch import report
from .materialize import means, tell
from .selection import included, parameter_option, path_option


@click.command()
@click.argument("paths", nargs=-1)
@path_option
@parameter_option
def pull(paths: tuple[str, ...], *, include: tuple[str, ...], parameters: tuple[str, ...]) -> int:
    """Replace stubs in the worktree by the real files.

    Objects are taken from this repository, from git-lfs's own store in it, or from a remote, all in one call. A stub
    whose objects cannot be had stays, and the exit code is 1. With --parameters only the objects of these parameters
    are fetched, and stubs that lack others stay.

    \b
    Example:
      git theta pull
      git theta pull models/legal.safetensors
      git theta pull --parameters 'h.0.*'
    """
    repository = Repository()
    repository.worktree()
    models = repository.models(*paths, *included(include))
    incomplete = 0
    if parameters:
        blobs = wanted(models, parameters)
        with opened(repository) as port:
            incomplete = report(fetch(port, blobs), blobs)
        models = [model for model in models if _complete(repository, model)]
    meter = Meter("writing models, MiB")
    outcomes = materialise(repository, models, means(repository, meter))
    meter.end()
    install(repository.git)
    return tell(repository, outcomes, "restored") or incomplete


def _complete(repository: Repository, model: ModelFile) -> bool:
    try:
        return model.manifest is not None and not repository.missing(model.manifest)
    except ManifestError:
        return False

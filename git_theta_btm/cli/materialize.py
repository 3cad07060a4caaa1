"""``git theta materialize`` and ``git theta dematerialize``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..checkout.worktree import Means, Outcome, Progress, dematerialise, materialise
from ..errors import ThetaError
from ..manifest import Blob
from ..repository import Repository
from .console import Meter, number, say, shown, size


@click.command()
@click.argument("paths", nargs=-1)
def materialize(paths: tuple[str, ...]) -> int:
    """Replace stubs by the real files, without the network.

    This is 'git theta pull' without the network. A stub whose objects are not all here stays, and the exit code is 1.

    \b
    Example:
      git theta materialize models/legal.safetensors
    """
    repository = Repository()
    repository.worktree()
    meter = Meter("writing models, MiB")
    outcomes = materialise(repository, repository.models(*paths), Means({}, progress=_in_mebibytes(meter)))
    meter.end()
    return tell(repository, outcomes, "restored")


@click.command()
@click.argument("paths", nargs=-1)
def dematerialize(paths: tuple[str, ...]) -> int:
    """Replace unmodified model files by stubs.

    A file is left alone, and the exit code is 1, if it is modified, or if one of its objects is missing or corrupt.
    To git nothing changes; 'git theta materialize' brings the files back.

    \b
    Example:
      git theta dematerialize models/medical.safetensors
    """
    repository = Repository()
    repository.worktree()
    return tell(repository, dematerialise(repository, repository.models(*paths)), "dematerialized", "it stays")


def means(repository: Repository, meter: Meter) -> Means:
    """What restores files with the help of remotes, and shows how far it is, in MiB."""

    def get(blobs: Sequence[Blob]) -> None:
        from ..remotes.fetching import fetch  # 20 ms that a switch with all objects here does not have to pay
        from ..remotes.transfer import opened

        try:
            with opened(repository) as port:
                received = fetch(port, blobs)
            if received.problem:
                say(f"theta: {received.problem}")
        except ThetaError as error:  # each file says for itself what it lacks
            say(f"theta: {error}")

    return Means({}, get, _in_mebibytes(meter))


def _in_mebibytes(meter: Meter) -> Progress:
    return lambda done, total: meter(done >> 20, total >> 20)


def tell(repository: Repository, outcomes: Sequence[Outcome], verb: str, otherwise: str = "it is still a stub") -> int:
    """Say what became of models; the exit code."""
    for outcome in outcomes:
        if outcome.problem:
            say(f"theta: {shown(repository.relative(outcome.path))}: {outcome.problem}; {otherwise}")
    done = [outcome for outcome in outcomes if not outcome.problem]
    say(f"{number(len(done), 'file')} {verb}, {size(sum(outcome.size for outcome in done))}")
    return int(len(done) < len(outcomes))

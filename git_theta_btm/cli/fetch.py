"""``git theta fetch``."""

from __future__ import annotations

import click

from ..errors import ThetaError
from ..manifest import Blob
from ..remotes.fetching import fetch as download
from ..remotes.fetching import remote_of, wanted
from ..remotes.transfer import Received, opened, scan
from ..repository import Repository
from .console import number, say, size
from .selection import included, parameter_option, path_option


@click.command()
@click.argument("remote", required=False)
@click.argument("revisions", nargs=-1, metavar="[REV]...")
@path_option
@parameter_option
@click.option("--all", "everything", is_flag=True, help="All objects of all refs.")
def fetch(
    remote: str | None,
    revisions: tuple[str, ...],
    *,
    include: tuple[str, ...],
    parameters: tuple[str, ...],
    everything: bool,
) -> int:
    """Download objects, and change nothing in the worktree.

    Those of the files in the index, or in each REV, that are not here yet. Other remotes are tried for what the first
    one lacks. The exit code is 1 if something is still missing.

    \b
    Example:
      git theta fetch
      git theta fetch origin legal --parameters 'h.0.*'
    """
    repository = Repository()
    first = [remote_of(repository, remote, "fetch")] if remote else []
    blobs = _wanted(repository, (remote, revisions), (included(include), parameters), everything=everything)
    with opened(repository) as port:
        received = download(port, blobs, *first)
    return report(received, blobs)


def _wanted(
    repository: Repository,
    origin: tuple[str | None, tuple[str, ...]],
    selection: tuple[tuple[str, ...], tuple[str, ...]],
    *,
    everything: bool,
) -> list[Blob]:
    (remote, revisions), (paths, parameters) = origin, selection
    if everything:
        if revisions or paths or parameters:
            raise ThetaError("--all goes with no revision, path or parameter")
        refs = repository.git.text("for-each-ref", "--format=%(objectname)").split("\n")
        return scan(repository.git, [oid for oid in refs if oid]).blobs
    if not revisions and repository.root is None:
        revisions = ("HEAD",)
    if not revisions:
        return wanted(repository.models(*paths), parameters)
    names = [_tracked(repository, remote, name) for name in revisions]
    return wanted([model for name in names for model in repository.models_of(name, *paths)], parameters)


def _tracked(repository: Repository, remote: str | None, name: str) -> str:
    """A revision; in a fresh clone a branch of the remote may be known by its long name alone."""
    longer = f"{remote}/{name}"
    return longer if remote and not repository.here.tree(name) and repository.here.tree(longer) else name


def report(received: Received, blobs: list[Blob]) -> int:
    """Say what came and what did not; the exit code."""
    sizes = {blob.digest: blob.size for blob in blobs}
    if received.missing:
        where = f"on {', '.join(received.asked)}" if received.asked else "here, and there is no remote"
        say(f"theta: {number(len(received.missing), 'object')} not found {where}, such as {received.missing[0].digest}")
    if received.problem:
        say(f"theta: {received.problem}")
    say(f"{number(received.count, 'object')} fetched of {len(sizes)}, {size(sum(sizes.values()))} in all")
    return int(bool(received.missing))

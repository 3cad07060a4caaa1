"""``git theta pull``."""

from __future__ import annotations

import click

from ..repository import Repository
from ..worktree import materialise
from .console import number, say, shown, size


@click.command()
@click.argument("paths", nargs=-1)
def pull(paths: tuple[str, ...]) -> int:
    """Replace stubs in the worktree by the real files.

    Objects are taken from this repository, and from git-lfs's own store in it. A stub whose objects are not all here
    stays, and the exit code is 1.

    \b
    Example:
      git theta pull
      git theta pull models/legal.safetensors
    """
    repository = Repository()
    repository.worktree()
    outcomes = materialise(repository, repository.models(*paths))
    for outcome in outcomes:
        if outcome.problem:
            say(f"theta: {shown(repository.relative(outcome.path))}: {outcome.problem}; it is still a stub")
    done = [outcome for outcome in outcomes if not outcome.problem]
    say(f"{number(len(done), 'file')} restored, {size(sum(outcome.size for outcome in done))}")
    return int(len(done) < len(outcomes))

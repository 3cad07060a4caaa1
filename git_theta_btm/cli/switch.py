"""``git theta switch``."""

from __future__ import annotations

import click

from ..checkout.switching import switch as run
from ..repository import Repository
from .console import Meter
from .materialize import means, tell
from .passing import Passing


@click.command(cls=Passing)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-c NEW] BRANCH")
def switch(arguments: tuple[str, ...]) -> int:
    """Switch branches as 'git switch' does, only faster.

    All options of 'git switch' can be given.

    git itself switches, or refuses to, with its own messages; but it writes stubs for models. The models are written
    afterwards by several threads, and what does not change is copied from the file that stood there. Hooks run
    before that, and see stubs. With --merge, --conflict or --recurse-submodules, git does all by itself.

    In a lazy clone, models that are files stay files, and stubs stay stubs. If a model cannot be written, its stub
    stays and the exit code is 1. After an interruption, 'git theta pull' writes what is left.

    \b
    Example:
      git theta switch legal
      git theta switch -c medical main
      git theta switch --detach v1.0
    """
    repository = Repository()
    repository.worktree()
    meter = Meter("writing models, MiB")
    switched = run(repository, arguments, means(repository, meter))
    meter.end()
    failed = tell(repository, switched.outcomes, "written") if switched.outcomes else 0
    return switched.code or failed

"""``git theta clone``."""

from __future__ import annotations

import click

from ..checkout.cloning import clone as run
from .console import Meter
from .materialize import means, tell
from .passing import Passing


@click.command(cls=Passing)
@click.option("--lazy", is_flag=True, help="Leave stubs, now and on later checkouts.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="URL [DIRECTORY]")
def clone(arguments: tuple[str, ...], *, lazy: bool) -> int:
    """Clone as 'git clone' does, only faster.

    All options of 'git clone' can be given.

    Objects are fetched in one go, and files are written by several threads. If a model cannot be written, its stub
    stays and the exit code is 1.

    A lazy clone fetches no object: each model is a stub, which says what it stands for. 'git theta pull PATH' makes
    files of those that are needed. The clone's configuration sets filter.theta.smudge, so that later checkouts leave
    stubs too; 'git theta install --local' makes it an ordinary clone.

    \b
    Example:
      git theta clone https://example.com/models.git
      git theta clone --lazy https://example.com/models.git
    """
    meter = Meter("writing models, MiB")
    cloned = run(arguments, lambda repository: means(repository, meter), lazy=lazy)
    meter.end()
    failed = tell(cloned.repository, cloned.outcomes, "written") if cloned.repository and cloned.outcomes else 0
    return cloned.code or failed

"""``git btm sweep``."""

from __future__ import annotations

from dataclasses import replace

import click

from ...cli.console import as_json, columns, data, dump, number, say
from ...errors import UsageError
from ...repository import Repository
from ..settings import load
from ..training.fleet import Outcome, outcomes_json
from ..training.fleet import train as run
from ..training.requests import settled
from ..training.sweeping import forget as drop
from ..training.sweeping import requests
from .train import launching, launching_options


@click.group()
def sweep() -> None:
    """Try short trainings to find out what is worth a long one."""


@sweep.command()
@click.argument("domain")
@click.option("--each", is_flag=True, help="One layer at a time; the default.")
@click.option("--window", type=click.IntRange(1), metavar="N", help="N layers in a row at a time.")
@click.option("--updates", default=100, show_default=True, type=click.IntRange(1), help="Updates of each training.")
@click.option("--forget", is_flag=True, help="Take earlier results away, and train nothing.")
@launching_options
@as_json
def layers(  # noqa: PLR0913 - one for each option
    domain: str,
    window: int | None,
    updates: int,
    *,
    each: bool,
    forget: bool,
    pairs: tuple[str, ...],
    launcher: str | None,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Train each layer alone from the seed's last save, and compare the loss on the validation text.

    Results are kept in refs/btm/sweeps/, so that an interrupted sweep goes on, until --forget takes them away.

    \b
    Example:
      git btm sweep layers --window 2 --updates 50 legal
    """
    if each and window:
        raise UsageError("--each is --window 1: give one of them")
    repository = Repository()
    if forget:
        say(f"{number(drop(repository.git, [domain]), 'result')} forgotten")
        return 0
    settings = launching(settled(load(repository.worktree()), pairs), launcher, jobs)
    wanted = requests(repository, domain, settings, window or 1, updates)
    done = [replace(item, name=item.name.rpartition("/")[2]) for item in run(repository, wanted, settings.launch)]
    if as_json:
        dump(domain=domain, layers=outcomes_json(done))
    else:
        for row in columns([("LAYERS", "STEP", "VALID LOSS", ""), *(_row(item) for item in done)]):
            data(row)
    return int(any(item.state == "failed" for item in done))


def _row(item: Outcome) -> tuple[str, ...]:
    loss = item.evaluated.removeprefix("valid=")
    return item.name, str(item.step), loss, item.problem

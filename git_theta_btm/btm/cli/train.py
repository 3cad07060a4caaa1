"""``git btm train``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from ...cli.console import as_json, columns, data, dump, number, say
from ...errors import ThetaError
from ...repository import Repository
from ..experts import expert, experts
from ..places import TRAINING
from ..settings import Settings, load
from ..training.branching import line
from ..training.committing import Content
from ..training.fleet import Outcome, outcomes_json, plan, report
from ..training.fleet import train as run
from ..training.parts import layers as parse_layers
from ..training.parts import lora_options
from ..training.requests import Part, Request, settled
from ..training.restoring import blobs

Function = TypeVar("Function", bound=Callable[..., Any])
_LAUNCHERS = click.Choice(["local", "torchrun", "slurm", "ray"])


def launching_options(function: Function) -> Function:
    """``--launcher``, ``--jobs`` and ``--set``."""
    for option in (
        click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting for this once: steps=200."),
        click.option("--jobs", "-j", type=click.IntRange(1), help="Trainings at a time."),
        click.option("--launcher", type=_LAUNCHERS, help="What runs them."),
    ):
        function = option(function)
    return function


def launching(settings: Settings, launcher: str | None, jobs: int | None) -> Settings:
    """The settings with what a command line says about launching."""
    launch = settings.launch
    launch = replace(launch, launcher=launcher or launch.launcher, jobs=jobs or launch.jobs)
    return replace(settings, launch=launch)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command line asks for of each expert."""

    part: Part
    optimizer: bool
    eval_splits: tuple[str, ...]
    command: str


@click.command()
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--all", "every", is_flag=True, help="Every expert.")
@click.option("--layers", default="", metavar="9-13,15", help="Train these layers only.")
@click.option("--trainable", default="", metavar="mlp|attn|GLOB", help="Train these parameters only.")
@click.option("--lora", default="", metavar="r=8[,alpha=16,targets=A+B]", help="Train an adapter in adapter/.")
@click.option("--lr-scale", default=1.0, metavar="FACTOR", help="Times the learning rate.")
@click.option(
    "--cmd",
    "command",
    default="",
    metavar="PROGRAM",
    help="A program of yours; see BTM_* in its environment.",
)
@click.option("--eval-splits", default="", metavar="SPLIT,DOMAIN:SPLIT", help="Record the loss of these at each save.")
@click.option("--no-optimizer", is_flag=True, help="Leave the state of the training out of commits.")
@click.option("--drop-optimizer", is_flag=True, help="Commit its removal, and train nothing.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would be done.")
@launching_options
@as_json
def train(  # noqa: PLR0913 - one for each option
    domains: tuple[str, ...],
    *,
    every: bool,
    layers: str,
    trainable: str,
    lora: str,
    lr_scale: float,
    command: str,
    eval_splits: str,
    no_optimizer: bool,
    drop_optimizer: bool,
    dry_run: bool,
    pairs: tuple[str, ...],
    launcher: str | None,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Train experts, each in a worktree and a process of its own, to the last of the steps in btm.toml.

    Each save is a commit on the branch. Interrupted, the same command goes on, to the same result. One that fails stops
    no other; the exit code is 1. With --lora the model stays what it is; 'git theta add --update low-rank' applies it.

    \b
    Example:
      git btm train legal --layers 1-2 --lr-scale 0.1
      git btm train --all --launcher local -j 2
    """
    repository = Repository()
    names = _names(repository, domains, every=every)
    if drop_optimizer:
        return _drop(repository, names)
    settings = launching(settled(load(repository.worktree()), pairs), launcher, jobs)
    splits = tuple(filter(None, eval_splits.split(",")))
    wanted = Wanted(_part(layers, trainable, lora, lr_scale), not no_optimizer, splits, command)
    requests = _requests(repository, settings, names, wanted)
    done = plan(repository, requests) if dry_run else run(repository, requests, settings.launch)
    tell(done, as_json=as_json)
    return int(any(outcome.state == "failed" for outcome in done))


def _part(layers: str, trainable: str, lora: str, lr_scale: float) -> Part:
    if layers:
        parse_layers(layers)
    return Part(layers, trainable, lora_options(lora) if lora else {}, lr_scale)


def tell(done: Sequence[Outcome], *, as_json: bool) -> None:
    """Print what became of trainings."""
    if as_json:
        dump(trainings=outcomes_json(done))
        return
    for row in columns(report(done)):
        data(row)


def _names(repository: Repository, domains: tuple[str, ...], *, every: bool) -> list[str]:
    if bool(domains) == every:
        raise click.UsageError("name experts, or say --all")
    if not every:
        return [expert(repository.git, name).branch for name in dict.fromkeys(domains)]
    found = [item.branch for item in experts(repository.git)]
    if not found:
        raise ThetaError("there are no experts yet: 'git btm branch DOMAIN...' makes some")
    return found


def _requests(repository: Repository, settings: Settings, names: Sequence[str], wanted: Wanted) -> list[Request]:
    return [
        Request(
            repository.worktree(), line(repository, name).ref, (expert(repository.git, name).checkpoint.domain,),
            settings.training.steps, settings, part=wanted.part, optimizer=wanted.optimizer,
            eval_splits=wanted.eval_splits, command=wanted.command,
        )
        for name in names
    ]  # fmt: skip


def _drop(repository: Repository, names: Sequence[str]) -> int:
    """Commit the removal of what only a training needs."""
    for name in names:
        found = line(repository, name)
        count = len(blobs(repository, found.tip(), f"{TRAINING}/"))
        if count:
            found.add(Content(folders=(TRAINING,)), f"{name}: drop the state of the training\n")
        say(f"{name}: {number(count, 'file')} dropped; the commits before still have them")
    return 0

"""``git theta add``."""

from __future__ import annotations

import os
import shlex

import click

from ..adapters.adding import Request, Updated, add_update
from ..adapters.files import KINDS
from ..repository import Repository
from .console import Meter, as_json, data, dump, number, say, shown, size


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--update", "--update-type", type=click.Choice(KINDS), help="What kind of update to apply first.")
@click.option(
    "--from", "--update-data", "--update-path", "source", metavar="FILE", help="The update: a folder or a file."
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@as_json
def add(paths: tuple[str, ...], update: str | None, source: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Stage files, with an update applied if one is given.

    Without options this is 'git add'. With an update, the parameters that it names are changed in the file, which is
    staged then; the commit costs no more than the update itself. Each change is made to the value in HEAD, from which
    the file must not differ. A model in several files is given as several files.

    \b
    low-rank  LoRA as PEFT saves it, a folder: weight + scale * B @ A
    ia3       IA3 as PEFT saves it, a folder: weight * vector
    sparse    a file of NAME.indices (flat, int64) and NAME.values, to be added
    dense     a file of tensors, which replace those of the same names

    Adapters are never unpickled. If adapter_config.json has a field theta_base, it must be the digest of the version
    in HEAD.

    \b
    Example:
      git theta add model.safetensors --update low-rank --from adapter/
    """
    if (update is None) != (source is None) and update != "dense":
        raise click.UsageError("--update and --from go together")
    if source is not None and update in ("sparse", "dense") and os.path.isdir(source):
        raise click.UsageError(f"--update {update} takes a file, and {source} is a folder")
    repository = Repository()
    if update is None or source is None:
        _plain(repository, paths, dry_run=dry_run)
        done = []
    else:
        meter = Meter("storing parameters")
        done = add_update(repository, paths, Request(update, source, dry_run), meter)
        meter.end()
    if as_json:
        dump(dry_run=dry_run, files=done)
        return
    for item in done:
        _tell(repository, item)
    if done and not dry_run:
        names = shlex.join(repository.relative(item.path) for item in done)
        say(f"to undo it: git restore --staged --worktree -- {names}")


def _plain(repository: Repository, paths: tuple[str, ...], *, dry_run: bool) -> None:
    output = repository.here.text("add", *(["--dry-run"] if dry_run else []), "--", *paths)
    if output:
        data(output)


def _tell(repository: Repository, item: Updated) -> None:
    verb = "updated" if item.digest else "to be updated"
    cost = f", stored as {size(item.factors)} of factors" if item.factors else ""
    path = shown(repository.relative(item.path))
    say(f"{path}: {number(len(item.parameters), 'parameter')} {verb}{cost}; the base is version {item.base}")

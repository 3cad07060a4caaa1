"""``git theta repack``."""

from __future__ import annotations

import click

from ..care.repack import Options, Report
from ..care.repack import repack as run
from ..manifest import spell
from ..repository import Repository
from .console import Meter, as_json, columns, data, dump, number, say, shown, size


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All versions that git keeps, not only the staged ones.")
@click.option("--mode", type=click.Choice(["fast", "small"]), help="Instead of what theta-store says for a path.")
@click.option("--stage", is_flag=True, help="Put the smaller manifests into the index, to be committed.")
@click.option("--dry-run", is_flag=True, help="Only estimate, from samples; write nothing.")
@as_json
def repack(  # noqa: PLR0913 - one for each option
    paths: tuple[str, ...], *, everything: bool, mode: str | None, stage: bool, dry_run: bool, as_json: bool
) -> None:
    """Store tensors again, in terms of better bases.

    Tries, for each tensor, that of the same name in the parent commit, the merge base and the oldest version, else
    the closest of a few of its type and size. Each new object is decoded and compared before it counts.

    Commits never change: those that exist go on naming the objects they have, and nothing is deleted, so the store
    grows at first. With --stage the index names the new objects; commit that, and whoever fetches only what is to
    come fetches less. Without it they serve the next git add that meets these tensors where no staged or committed
    version of the file says how they are stored. A path with theta-store=raw is left alone.

    \b
    Example:
      git theta repack --dry-run
      git theta repack --mode small --stage && git commit -m "Store smaller"
    """
    repository = Repository()
    meter = Meter("repacking tensors")
    report = run(repository, Options(paths, everything, mode, stage, dry_run), meter)
    meter.end()
    if as_json:
        dump(tensors=report.tensors, repacked=report.repacked, staged=report.staged)
        return
    rows = [
        (f"{size(item.before)} -> {size(item.after)}", spell(item.parameter), shown(item.path))
        for item in report.repacked
    ]
    for line in columns(rows):
        data(line)
    _tell(report, dry_run=dry_run)


def _tell(report: Report, *, dry_run: bool) -> None:
    before, after = (sum(getattr(item, side) for item in report.repacked) for side in ("before", "after"))
    verb = "would become" if dry_run else "became"
    say(f"{len(report.repacked)} of {number(report.tensors, 'tensor')} {verb} smaller: {size(before)} -> {size(after)}")
    if report.staged:
        say(f"{number(len(report.staged), 'manifest')} staged: commit to use the smaller objects")

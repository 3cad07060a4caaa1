"""``git theta fsck``."""

from __future__ import annotations

import click

from ..care.fsck import Options, Report
from ..care.fsck import fsck as check
from ..repository import Repository
from .console import Meter, as_json, data, dump, number, printable, say, shown


@click.command()
@click.argument("revisions", nargs=-1, metavar="[REV]...")
@click.option("--objects", is_flag=True, help="Check the objects that no manifest names, too.")
@click.option("--fix", is_flag=True, help="Move corrupt objects to theta/corrupt, so that they can be stored again.")
@as_json
def fsck(revisions: tuple[str, ...], *, objects: bool, fix: bool, as_json: bool) -> int:
    """Check that every version of every model can be rebuilt.

    Looks at all manifests that git keeps: in commits, the index, stashes, reflogs and other worktrees. Each object is
    hashed once. The exit code is 1 if anything is wrong.

    \b
    Example:
      git theta fsck
      git theta fsck main~10..main
    """
    meter = Meter("checking objects")
    report = check(Repository(), Options(revisions, objects, fix), meter)
    meter.end()
    if as_json:
        dump(manifests=report.manifests, objects=report.objects, problems=report.problems, moved=report.moved)
        return int(bool(report.problems))
    for item in report.problems:
        fields = (shown(item.where), item.parameter, item.object, printable(item.problem))
        data(": ".join(field for field in fields if field))
    say(f"{number(report.manifests, 'manifest')} and {number(report.objects, 'object')} checked")
    if report.problems:
        say(f"{number(len(report.problems), 'problem')}; {_remedy(report, fix=fix)}")
    return int(bool(report.problems))


def _remedy(report: Report, *, fix: bool) -> str:
    again = "where the file is still here, store it again: git add --renormalize PATH"
    if fix:
        return f"{report.moved} moved to theta/corrupt; {again}"
    corrupt = any(item.problem.startswith("corrupt") for item in report.problems)
    return f"move corrupt objects aside first: git theta fsck --fix; {again}" if corrupt else again

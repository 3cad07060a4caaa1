"""``git theta fsck``."""

from __future__ import annotations

import click

from ..care.fsck import Options, Problem, Report
from ..care.fsck import fsck as check
from ..errors import UsageError
from ..remotes.checking import check as ask
from ..remotes.transfer import opened, remotes
from ..repository import Repository
from .console import Meter, as_json, data, dump, number, printable, say, shown


@click.command()
@click.argument("revisions", nargs=-1, metavar="[REV]...")
@click.option("--objects", is_flag=True, help="Check the objects that no manifest names, too.")
@click.option("--fix", is_flag=True, help="Move corrupt objects to theta/corrupt, so that they can be stored again.")
@click.option(
    "--remote", is_flag=False, flag_value="", metavar="[NAME]", help="Ask a remote for the objects that it must have."
)
@as_json
def fsck(revisions: tuple[str, ...], *, objects: bool, fix: bool, remote: str | None, as_json: bool) -> int:
    """Check that every version can be rebuilt.

    Looks at all manifests that git keeps: in commits, the index, stashes, reflogs and other worktrees. Each object is
    hashed once. The exit code is 1 if anything is wrong.

    With --remote a remote, by default the one that the branch follows, is asked for all objects that its own branches
    and tags need, or each REV: whether it has them, in the right size. Nothing is downloaded.

    \b
    Example:
      git theta fsck
      git theta fsck main~10..main
      git theta fsck --remote=origin
    """
    if remote is not None:
        if objects or fix:
            raise UsageError("--remote goes with neither --objects nor --fix")
        return _remote(remote, revisions, as_json=as_json)
    meter = Meter("checking objects")
    repository = Repository()
    report = check(repository, Options(revisions, objects, fix), meter)
    meter.end()
    if as_json:
        dump(manifests=report.manifests, objects=report.objects, problems=report.problems, moved=report.moved)
        return int(bool(report.problems))
    for item in report.problems:
        fields = (shown(item.where), item.parameter, item.object, printable(item.problem))
        data(": ".join(field for field in fields if field))
    say(f"{number(report.manifests, 'manifest')} and {number(report.objects, 'object')} checked")
    if report.problems:
        say(f"{number(len(report.problems), 'problem')}; {_remedy(repository, report, fix=fix)}")
    return int(bool(report.problems))


def _remote(name: str, revisions: tuple[str, ...], *, as_json: bool) -> int:
    with opened(Repository()) as port:
        report = ask(port, name, revisions)
    words = f"not on {report.remote}"
    parameters = [(need, need.owner.removeprefix("parameter ")) for need in report.missing]
    problems = [Problem(need.path, parameter, need.blob.digest, words) for need, parameter in parameters]
    if as_json:
        dump(
            remote=report.remote,
            objects=report.objects,
            problems=problems,
            broken=report.broken,
            unknown=report.unknown,
        )
        return int(bool(problems or report.broken))
    for item in problems:
        data(f"{shown(item.where)}: {item.parameter}: {item.object}: {printable(item.problem)}")
    for line in report.broken:
        data(printable(line))
    say(f"{shown(report.remote)} was asked for {number(report.objects, 'object')}")
    if report.unknown:
        say(f"{number(len(report.unknown), 'ref')} of it lead elsewhere than to what is here: git fetch first")
    if problems:
        again = f"upload what is here, or on another remote: git theta push --all {report.remote}"
        say(f"{number(len(problems), 'problem')}; {again}")
    return int(bool(problems or report.broken))


def _remedy(repository: Repository, report: Report, *, fix: bool) -> str:
    """What to type next, the first thing first."""
    again = "where the file is still here, store it again: git add --renormalize PATH"
    if remotes(repository.git):
        again = f"fetch what a remote has: git theta fetch --all; {again}"
    if fix:
        return f"{report.moved} moved to theta/corrupt; {again}"
    corrupt = any(item.problem.startswith("corrupt") for item in report.problems)
    return f"move corrupt objects aside first: git theta fsck --fix; {again}" if corrupt else again

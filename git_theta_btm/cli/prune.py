"""``git theta prune``."""

from __future__ import annotations

import time

import click

from ..care.pruning import Options, Report
from ..care.pruning import prune as run
from ..errors import UsageError
from ..remotes.offloading import offload
from ..repository import Repository
from .console import Meter, as_json, data, dump, number, say, size


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Remove nothing, only tell what would go.")
@click.option("-v", "--verbose", is_flag=True, help="Print each object that goes.")
@click.option("--expire", default="1.hour.ago", metavar="TIME", show_default=True, help="Keep what is younger.")
@click.option("--local-copies", is_flag=True, help="Remove what a remote has and no worktree needs now, instead.")
@as_json
def prune(*, dry_run: bool, verbose: bool, expire: str, local_copies: bool, as_json: bool) -> None:
    """Remove objects from the store that no version needs.

    Every manifest that git still has keeps its objects, whatever leads to it: branches, tags, stashes, reflogs, the
    index, other worktrees, or nothing but the two weeks for which git itself keeps what was dropped. To be rid of a
    version for good, let git forget it first.

    Safe at any time: it waits for a git add that is running, and the next one waits for it. What goes is gone from
    this machine alone.

    With --local-copies objects go that versions do need, but no worktree now: those that a remote confirms to have,
    when asked. The next checkout that needs them fetches them again. What was added or checked out after the time that
    --expire names stays.

    \b
    Example:
      git theta prune --dry-run
      git theta prune --local-copies
      git gc --prune=now && git theta prune --expire=now
    """
    repository = Repository()
    options = Options(_moment(repository, expire), dry_run)
    if local_copies:
        report = offload(repository, options)
    else:
        meter = Meter("pruning objects")
        report = run(repository, options, meter)
        meter.end()
    if as_json:
        removed = [{"object": blob.digest, "size": blob.size} for blob in report.removed]
        dump(removed=removed, needed=report.needed, young=report.young)
        return
    for blob in report.removed if verbose else ():
        data(f"{blob.digest} {blob.size}")
    _tell(report, dry_run=dry_run)


def _tell(report: Report, *, dry_run: bool) -> None:
    total = size(sum(blob.size for blob in report.removed))
    verb = "would be removed" if dry_run else "removed"
    young = f", {report.young} too young to tell" if report.young else ""
    say(f"{number(len(report.removed), 'object')} ({total}) {verb}; {report.needed} kept{young}")


def _moment(repository: Repository, words: str) -> float:
    """A time as git prune understands it, in seconds since 1970; never in the future."""
    setting = ("-c", f"theta.expire={words}", "config", "--type=expiry-date", "theta.expire")
    answer = repository.git.run(*setting, check=False)
    if answer.returncode:
        raise UsageError(f"{words!r} is no time: try 2.days.ago, or now")
    return min(float(answer.stdout), time.time())

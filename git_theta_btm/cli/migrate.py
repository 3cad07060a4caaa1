"""``git theta migrate``."""

from __future__ import annotations

import click

from ..errors import UsageError
from ..migration.migrating import Options, Progress, Report, migrate_in, migrate_out
from ..migration.relocation import forget, restore
from ..repository import Repository
from .console import Meter, as_json, columns, data, dump, number, say, shown, size


@click.command()
@click.argument("action", type=click.Choice(["import", "export", "undo", "forget"]))
@click.option("-I", "--include", multiple=True, metavar="PATTERN", help="Import these files instead of all models.")
@click.option("--include-ref", multiple=True, metavar="REF", help="Only this branch or tag; may be given again.")
@click.option("--to", "target", type=click.Choice(["lfs", "plain"]), help="What to export to; lfs if it is not given.")
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing, only tell which files or refs there are.")
@as_json
def migrate(  # noqa: PLR0913 - one for each option
    *,
    action: str,
    include: tuple[str, ...],
    include_ref: tuple[str, ...],
    target: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Rewrite history, with models as manifests or without.

    import makes manifests of the files that match the patterns (by default those of the usual suffixes), whether git
    holds them as they are or git-lfs does; lines of .gitattributes follow. export does the opposite. All else in the
    trees stays as it is, and so do authors, dates, messages and merges. Signatures do not: they would be wrong.

    Refs change in one step at the end. The old history stays under refs/theta/original until migrate forget; migrate
    undo puts it back. As with every rewritten history, others must clone again, and the push needs --force.

    \b
    Example:
      git theta migrate import --dry-run
      git theta migrate import --include '*.pt' --include 'models/**'
      git theta migrate export --to lfs
    """
    repository = Repository()
    if include and action != "import":
        raise UsageError("--include is for import alone")
    if target and action != "export":
        raise UsageError("--to is for export alone")
    if action in ("undo", "forget"):
        if include_ref:
            raise UsageError(f"--include-ref is for import and export: {action} is about all refs")
        _back(repository, action, dry_run=dry_run, as_json=as_json)
        return
    options = Options(include, include_ref, dry_run)
    meter = Meter("rewriting commits")
    report = _run(repository, options, meter, "" if action == "import" else target or "lfs")
    meter.end()
    if as_json:
        dump(refs=report.refs, commits=report.commits, versions=report.versions)
        return
    _tell(report, dry_run=dry_run)


def _run(repository: Repository, options: Options, progress: Progress, target: str) -> Report:
    if target:
        return migrate_out(repository, options, progress, plain=target == "plain")
    return migrate_in(repository, options, progress)


def _back(repository: Repository, action: str, *, dry_run: bool, as_json: bool) -> None:
    refs = (restore if action == "undo" else forget)(repository, dry_run=dry_run)
    if as_json:
        dump(refs=refs)
        return
    if dry_run:
        for ref in refs:
            data(ref)
        say(f"{number(len(refs), 'ref')} would change; nothing was changed")
        return
    verb = "as they were before" if action == "undo" else "of the old history forgotten"
    say(f"{number(len(refs), 'ref')} {verb}")


def _tell(report: Report, *, dry_run: bool) -> None:
    paths: dict[tuple[str, str], list[int]] = {}
    for version in report.versions:
        paths.setdefault((version.path, version.kind), []).append(version.size)
    rows = [
        (number(len(sizes), "version"), size(sum(sizes)), kind, shown(path)) for (path, kind), sizes in paths.items()
    ]
    for line in columns(rows):
        data(line)
    total = size(sum(version.size for version in report.versions))
    found = f"{number(len(report.versions), 'version')} of models, {total}"
    if dry_run:
        say(f"{found}; nothing was changed")
        return
    say(f"{found}; {number(report.commits, 'commit')} rewritten, {number(len(report.refs), 'ref')} moved")
    if report.refs:
        say("to undo: git theta migrate undo; to let the old history go: git theta migrate forget")

"""``git theta doctor``."""

from __future__ import annotations

import click

from ..care.checkup import Finding, examine, repair
from ..repository import Repository
from .console import as_json, data, dump, number, printable, say, shown


@click.command()
@click.option("--fix", is_flag=True, help="Repair what can be repaired, and look again.")
@as_json
def doctor(*, fix: bool, as_json: bool) -> int:
    """Find what is wrong here, and say what helps.

    Each finding has a code, a place, a remedy, and a mark if --fix can repair it. The exit code is 1 if there are any
    (with --fix, any left). Objects are not read; 'git theta fsck' does that.

    \b
    Example:
      git theta doctor --fix
    """
    repository = Repository()
    findings = examine(repository)
    before = len(findings)
    if fix:
        repair(repository, findings)
        findings = examine(repository)
    if as_json:
        dump(findings=findings)
        return int(bool(findings))
    for finding in findings:
        data(_line(finding))
    if fix and before > len(findings):
        say(f"{number(before - len(findings), 'finding')} repaired")
    say(f"{number(len(findings), 'finding')} left" if findings else "nothing is wrong")
    return int(bool(findings))


def _line(finding: Finding) -> str:
    place = f" {shown(finding.path)}" if finding.path else ""
    remedy = f"{finding.remedy}{' (or --fix)' if finding.fixable else ''}"
    return f"{finding.code}{place}: {printable(finding.message)}\n    {printable(remedy)}"

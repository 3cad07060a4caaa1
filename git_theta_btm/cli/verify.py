"""``git theta verify``."""

from __future__ import annotations

import click

from ..manifest import spell
from ..merging.records import NONE, Record, Taken
from ..merging.trailers import dumps
from ..merging.verifying import Report
from ..merging.verifying import verify as check
from ..repository import Repository
from .console import as_json, data, dump, number, printable, say, shown


@click.command()
@click.argument("revision", default="HEAD", metavar="[REV]")
@as_json
def verify(revision: str, *, as_json: bool) -> int:
    """Merge again what a commit merged, and compare.

    The commit's message records the experts, their weights, the base and the strategy. Every model is merged once more
    from them, objects that are not here are fetched, and each parameter is compared by its digest, and so is the whole
    file. Strategies that use a matrix library, whose last bits differ from machine to machine, are compared within two
    units of the last place instead, by norm.

    Of a conflict that 'git theta resolve' ended with one side's version, that version is compared. What a person made
    cannot be made again: it is compared with the digest that was recorded, the inputs are read, and it is named.

    The exit code is 0 if everything agrees, 1 if something does not, and 128 if the commit records no merge.

    \b
    Example:
      git theta verify
      git theta verify v1.0
    """
    report = check(Repository(), revision)
    if as_json:
        dump(
            commit=report.commit,
            trailers=dumps(report.record),
            models=report.models,
            differences=report.differences,
        )
        return int(bool(report.differences))
    for item in report.differences:
        fields = (shown(item.path), spell(item.parameter) if item.parameter else "", printable(item.problem))
        data(": ".join(field for field in fields if field))
    _summary(report)
    return int(bool(report.differences))


def _summary(report: Report) -> None:
    wrong = {item.path for item in report.differences}
    for model in report.models:
        if model.tolerated:
            count = number(len(model.tolerated), "parameter")
            say(f"{shown(model.path)}: {count} only within the tolerance of a strategy that is not exact")
        if model.by_hand and model.path not in wrong:
            say(f"{shown(model.path)}: made by hand, which nothing repeats: it is as recorded, its inputs intact")
        if model.taken and model.path not in wrong:
            say(f"{shown(model.path)}: taken as it is in {_named(report, model.taken)}")
    experts = ", ".join(expert.name for expert in report.record.experts)
    computed = number(sum(model.computed for model in report.models), "parameter")
    parts = f"{number(len(report.models), 'model')}, {computed} merged"
    verdict = number(len(report.differences), "difference") if report.differences else "all of it agrees"
    say(f"{report.commit[:12]}: {', '.join(_ways(report.record))} of {experts}: {parts}, {verdict}")


def _named(report: Report, commit: str) -> str:
    names = {expert.commit: expert.name for expert in report.record.experts}
    return names.get(commit, "the base" if commit == report.record.base else commit[:12])


def _ways(record: Record) -> list[str]:
    """In what ways the files of a merge were made."""
    recipes = (record.recipe, *record.files.values())
    found = [recipe.strategy for recipe in recipes if recipe.strategy != NONE]
    found += ["taken" if isinstance(item, Taken) else "by hand" for item in record.whole.values()]
    return list(dict.fromkeys(found))

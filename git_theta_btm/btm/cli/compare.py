"""``git btm compare``."""

from __future__ import annotations

import csv
import sys
from contextlib import ExitStack

import click

from ...cli.console import Meter, as_json, columns, data, dump, number, printable, say
from ...errors import UsageError
from ..comparing import By, Comparison, Row
from ..comparing import compare as measure
from ..opening import open_model

_HEAD = ("parameters", "numbers changed", "L2", "largest", "relative", "cosine", "skipped")


@click.command()
@click.argument("one", type=click.Path(), metavar="A")
@click.argument("other", type=click.Path(), metavar="B")
@click.option(
    "--by-layer", "by", flag_value="layer", default="layer", help="A row for each layer; what it does anyway."
)
@click.option("--by-parameter", "by", flag_value="parameter", help="A row for each parameter.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@as_json
def compare(one: str, other: str, *, by: By, as_csv: bool, as_json: bool) -> None:
    """Show what training changed from model A to model B.

    Each is a checkpoint file, REV:PATH, or a revision with a model/model.safetensors, which has its adapter in it, if
    there is one that is not applied yet. For each layer: how many of its parameters and of their numbers differ, the
    norm of the difference, its largest element, that norm relative to A's, and the cosine of the angle between both.
    All are over parameters that differ: the others are not read. Pairs with a NaN or an infinity are counted as
    skipped.

    \b
    Example:
      git btm compare main legal
      git btm compare seed.pt legal.pt --by-parameter --csv
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other")
    meter = Meter("comparing")
    with ExitStack() as stack:
        sides = [open_model(word, stack, adapted=True) for word in (one, other)]
        found = measure(sides[0].checkpoint, sides[1].checkpoint, by, meter)
        for side in sides:
            side.check_unchanged()
    meter.end()
    if as_json:
        rows = [row.values() for row in found.rows]
        dump(by=by, rows=rows, added=found.added, removed=found.removed, total=found.total.values())
    elif as_csv:
        _csv(found)
    else:
        _table(found, by)


def _csv(found: Comparison) -> None:
    writer = csv.DictWriter(sys.stdout, list(found.total.values()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.values() for row in found.rows)


def _table(found: Comparison, by: By) -> None:
    for line in columns([(by, *_HEAD), *map(_cells, found.rows), _cells(found.total)]):
        data(line)
    for names, verb in ((found.added, "only in the second"), (found.removed, "only in the first")):
        if names:
            say(f"{number(len(names), 'parameter')} {verb}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")


def _cells(row: Row) -> tuple[str, ...]:
    shares = f"{row.differing}/{row.parameters}", f"{row.sums.changed}/{row.elements}"
    numbers = (row.l2, row.sums.largest, row.relative, row.cosine)
    known = row.differing == 0 or row.incomparable < row.differing
    return (
        printable(row.name),
        *shares,
        *(f"{value:.6g}" if known else "-" for value in numbers),
        str(row.sums.skipped),
    )

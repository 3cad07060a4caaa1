"""An option by which a command is told how much each model counts."""

from __future__ import annotations

import click


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    try:
        return tuple(map(float, value.split(","))) if value is not None else ()
    except ValueError:
        raise click.BadParameter(f"{value!r} is not numbers separated by commas", ctx, param) from None


weights_option = click.option(
    "--weights", callback=_numbers, metavar="W,W,...", help="A number for each DIR; without it they are equal."
)

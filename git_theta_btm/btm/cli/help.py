"""``git btm help``."""

from __future__ import annotations

import click

from ...cli.help import explain


@click.command()
@click.argument("command", nargs=-1)
@click.pass_context
def help(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of a command, or the list of commands.

    \b
    Example:
      git btm help train
      git btm help data add
    """
    explain(ctx.find_root(), command)

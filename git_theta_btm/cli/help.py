"""``git theta help``."""

from __future__ import annotations

import click


@click.command()
@click.argument("command", required=False)
@click.pass_context
def help(ctx: click.Context, command: str | None) -> None:
    """Show the help of a command, or the list of commands.

    \b
    Example:
      git theta help track
    """
    group = ctx.find_root()
    assert isinstance(group.command, click.Group)
    if command is None:
        click.echo(group.get_help())
        return
    found = group.command.get_command(group, command)
    if found is None:
        raise click.UsageError(f"there is no command {command!r}", group)
    with found.make_context(command, [], parent=group, resilient_parsing=True) as inner:
        click.echo(found.get_help(inner))

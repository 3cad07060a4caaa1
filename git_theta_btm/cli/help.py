"""``git theta help``."""

from __future__ import annotations

from collections.abc import Sequence

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
    explain(ctx.find_root(), [command] if command else [])


def explain(context: click.Context, words: Sequence[str]) -> None:
    """Print the help of a group, or of the command in it that words name. Raises ``UsageError`` if there is none."""
    command = context.command
    if not words:
        click.echo(command.get_help(context))
        return
    found = command.get_command(context, words[0]) if isinstance(command, click.Group) else None
    if found is None:
        raise click.UsageError(f"there is no command {words[0]!r}", context)
    with found.make_context(words[0], [], parent=context, resilient_parsing=True) as inner:
        explain(inner, words[1:])

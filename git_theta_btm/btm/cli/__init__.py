"""The command line, ``git btm``: parse, call one function of the package, print, end with an exit code."""

from __future__ import annotations

import sys

import click

from ... import __version__
from ...cli import Commands, execute

# command: module. In the order of the help.
COMMANDS = {
    "init": "init",
    "data": "data",
    "domains": "domains",
    "seed": "seed",
    "branch": "branch",
    "train": "train",
    "sweep": "sweep",
    "status": "status",
    "eval": "evaluate",
    "prior": "prior",
    "ensemble": "ensemble",
    "merge": "merge",
    "average": "average",
    "compare": "compare",
    "import": "importing",
    "export": "exporting",
    "help": "help",
}
NAME = "git btm"


class BtmCommands(Commands):
    """The commands of ``git btm``."""

    modules = COMMANDS
    package = __name__


@click.group(
    cls=BtmCommands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="git-theta-btm %(version)s")
@click.pass_context
def btm(ctx: click.Context) -> None:
    """Branch-Train-Merge with git: experts on branches, trained apart, ensembled or merged.

    \b
    git btm init                     btm.toml, and what git theta tracks
    git btm data add legal FILE...   text of a domain
    git btm seed train               a seed model on this branch
    git btm branch legal medical     one branch for each expert
    git btm train --all              each in a worktree of its own
    git btm merge legal medical      one model again
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run a command and exit: 0, 1 for "no" or "problems found", 128 if it failed, 129 if it makes no sense."""
    sys.exit(execute(btm, NAME, sys.argv[1:]))

"""The command line, ``git theta``: parse, call one function of the package, print, end with an exit code.

Commands are modules that are imported when they are asked for, so that each pays for itself alone.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import click

from .. import __version__
from ..errors import ThetaError
from ..gitdir import is_set

# command: module. In the order of the help.
COMMANDS = {
    "install": "install",
    "uninstall": "install",
    "track": "track",
    "untrack": "track",
    "add": "add",
    "ls-files": "ls_files",
    "status": "status",
    "switch": "switch",
    "merge": "merge",
    "resolve": "resolve",
    "verify": "verify",
    "card": "card",
    "clone": "clone",
    "pull": "pull",
    "materialize": "materialize",
    "dematerialize": "materialize",
    "fetch": "fetch",
    "push": "push",
    "merge-adapters": "adapters",
    "upcycle": "upcycle",
    "pre-push": "pre_push",
    "prepare-commit-msg": "prepare_commit_msg",
    "show": "show",
    "size": "size",
    "repack": "repack",
    "export": "exporting",
    "import": "exporting",
    "migrate": "migrate",
    "prune": "prune",
    "fsck": "fsck",
    "dedup": "dedup",
    "doctor": "doctor",
    "env": "env",
    "completion": "completion",
    "help": "help",
}
COMPLETE = "_GIT_THETA_COMPLETE"
NAME = "git theta"
# Which extra brings a package that not everybody needs; the rest is for training.
_EXTRAS = {"array_api_compat": "torch", "torch": "torch", "lm_eval": "fewshot"}


class Commands(click.Group):
    """Commands of a package's modules, each imported when it is asked for."""

    modules = COMMANDS
    package = __name__

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        module = import_module(f".{self.modules[cmd_name]}", self.package)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="git-theta-btm %(version)s")
@click.pass_context
def theta(ctx: click.Context) -> None:
    """Version machine-learning models parameter by parameter.

    \b
    git theta install            once on each machine
    git theta track '*.pt'       once in each repository
    git add model.pt             and from here on with git alone
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run a command and exit: 0, 1 for "no" or "problems found", 128 if it failed, 129 if it makes no sense."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command of ``git theta``; returns the exit code."""
    return execute(theta, NAME, arguments)


def execute(group: click.Group, name: str, arguments: list[str]) -> int:
    """Run a command of a group that is called ``name``; returns the exit code. Errors become one line."""
    program = name.replace(" ", "-")
    complete = f"_{program.replace('-', '_').upper()}_COMPLETE"  # the variable by which a shell asks for completions
    try:
        if complete in os.environ:
            return _complete(group, program, complete)
        # Not by main(), which has its own idea of exit codes, even for a reader that has gone away.
        with group.make_context(name, arguments) as context:
            result = group.invoke(context)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more when it ends
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, click.Abort):
        return 128 + signal.SIGINT
    except click.UsageError as error:
        usage = error.ctx.get_usage() if error.ctx else f"Usage: {name} COMMAND"
        return _fail(error.format_message().replace("\n\t", " "), 129, "u" + " ".join(usage.split())[1:])
    except ModuleNotFoundError as error:
        if is_set("GIT_TRACE_THETA") or not error.name or error.name.startswith(__name__.partition(".")[0]):
            raise
        extra = _EXTRAS.get(error.name.partition(".")[0], "btm")
        return _fail(f"this needs {error.name}, which is not installed: pip install 'git-theta-btm[{extra}]'", 128)
    except (ThetaError, OSError, click.ClickException) as error:
        if is_set("GIT_TRACE_THETA"):
            raise
        return _fail(str(error), error.exit_code if isinstance(error, ThetaError) else 128)


def _complete(group: click.Group, program: str, variable: str) -> int:
    """Answer a shell. What nobody knows better is a file name, as it is for git's own commands."""
    from click.shell_completion import CompletionItem, get_completion_class

    name, _, instruction = os.environ[variable].partition("_")
    kind = get_completion_class(name)
    if kind is None or instruction not in ("source", "complete"):
        return 1
    shell = kind(group, {}, program, variable)
    if instruction == "source":
        click.echo(shell.source())
        return 0
    words, incomplete = shell.get_completion_args()
    found = shell.get_completions(words, incomplete)
    if not found and words and not incomplete.startswith("-"):
        found = [CompletionItem(incomplete, type="file")]
    click.echo(os.fsencode("\n".join(map(shell.format_completion, found))))
    return 0


def _fail(message: str, code: int, *more: str) -> int:
    for line in (f"theta: {message}", *more):
        click.echo("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line), err=True)
    return code

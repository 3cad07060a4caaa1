"""``git theta install`` and ``git theta uninstall``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from ..git import Git
from ..remotes import hooks
from ..setup import install as installation
from .console import say

Function = TypeVar("Function", bound=Callable[..., Any])

_DEFAULT: installation.Scope = "global"  # a new clone needs it before its first checkout


def scope_options(function: Function) -> Function:
    """One flag for each of git's scopes of configuration."""
    for scope in reversed(get_args(installation.Scope)):  # the last decorator's option stands first in the help
        words = {"global": "For this user (the default).", "system": "For every user of this machine."}
        text = words.get(scope, f"For this {'repository' if scope == 'local' else 'worktree'} alone.")
        function = click.option(f"--{scope}", "scope", flag_value=scope, type=str, default=None, help=text)(function)
    return function


@click.command()
@scope_options
@click.option("--skip-smudge", is_flag=True, help="Leave stubs on checkout; fetch files by 'git theta pull'.")
@click.option("--force", is_flag=True, help="Replace values that something else has set.")
def install(scope: installation.Scope | None, *, skip_smudge: bool, force: bool) -> None:
    """Tell git about the filters.

    Writes filter.theta.* and merge.theta.* with 'git config'. Once for each user is enough; a second time changes
    nothing. A value that something else has set is refused. With --local the pre-push hook is put in place too;
    elsewhere that happens when a repository gets its first model.

    \b
    Example:
      git theta install
    """
    git, scope = Git(), scope or _DEFAULT
    changed = installation.install(git, scope, skip_smudge=skip_smudge, force=force)
    say(f"git-theta is installed ({scope})" if changed else f"git-theta was installed already ({scope})")
    if scope == "local":
        warn_of_hook(git, hooks.state(git))
    if not installation.has_lfs(git):
        say("warning: git-lfs is not installed; it will be needed to exchange models with others")


def warn_of_hook(git: Git, state: hooks.State) -> None:
    """Say what to do where the hook is a program of somebody else's."""
    if state == "foreign":
        say(f"warning: the {hooks.NAME} hook is not ours to change: {hooks.remedy(git)}")


@click.command()
@scope_options
@click.option("--force", is_flag=True, help="Remove values that something else has set, too.")
def uninstall(scope: installation.Scope | None, *, force: bool) -> None:
    """Take back what 'git theta install' wrote.

    Nothing else changes; a configuration file that held nothing else is removed. Models stay as they are.

    \b
    Example:
      git theta uninstall --local
    """
    scope = scope or _DEFAULT
    removed = installation.uninstall(Git(), scope, force=force)
    say(f"git-theta is no longer installed ({scope})" if removed else f"git-theta was not installed ({scope})")

"""``git theta track`` and ``git theta untrack``."""

from __future__ import annotations

import shlex

import click

from ..remotes import hooks
from ..repository import Repository
from ..setup import attributes
from ..setup.environment import filter_state
from .console import as_json, columns, data, dump, number, say, shown
from .install import warn_of_hook

_NAMED = 5  # files that a hint names one by one


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--filename", is_flag=True, help="Take arguments for file names: no character is special.")
@as_json
def track(patterns: tuple[str, ...], *, filename: bool, as_json: bool) -> None:
    """Version files by parameter, or list their patterns.

    Adds a line for each pattern to .gitattributes in this directory; put patterns in quotes, or the shell expands
    them. Without a pattern, lists those of all attributes files.

    \b
    Example:
      git theta track '*.safetensors' '*.pt'
      git add .gitattributes
    """
    repository = Repository()
    if patterns:
        wanted = [attributes.literal(name) for name in patterns] if filename else list(patterns)
        changed = attributes.track(repository, wanted)
        say("now commit it: git add .gitattributes" if changed else "tracked already")
        _warn(repository)
        warn_of_hook(repository.git, hooks.install(repository.git))
    if as_json or not patterns:
        _list(repository, as_json=as_json)


def _list(repository: Repository, *, as_json: bool) -> None:
    found = list(attributes.tracked(repository))
    if as_json:
        dump(patterns=found)
        return
    for line in columns([(shown(item.pattern), shown(repository.relative(item.file))) for item in found]):
        data(line)


def _warn(repository: Repository) -> None:
    if filter_state(repository.git) == "missing":
        say("warning: git does not know the filters yet: git theta install")
    plain = [repository.relative(path) for path in attributes.touch_plain(repository)]
    if plain:
        say(f"git holds {number(len(plain), 'file')} as they are; to store the parameters instead:")
        say("git add --renormalize " + (f"-- {shlex.join(plain)}" if len(plain) <= _NAMED else ":/"))


@click.command()
@click.argument("patterns", nargs=-1, required=True)
@click.option("--filename", is_flag=True, help="Take arguments for file names: no character is special.")
def untrack(patterns: tuple[str, ...], *, filename: bool) -> None:
    """Take patterns out of .gitattributes in this directory.

    Files stay as they are committed until they are added again.

    \b
    Example:
      git theta untrack '*.pt'
    """
    wanted = [attributes.literal(name) for name in patterns] if filename else list(patterns)
    changed = attributes.untrack(Repository(), wanted)
    say("now commit it: git add .gitattributes" if changed else "no such pattern in .gitattributes of this directory")

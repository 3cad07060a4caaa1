"""``git theta merge``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import click

from ..errors import UsageError
from ..merging import pending
from ..merging.choosing import Chosen
from ..merging.computing import Device
from ..merging.consulting import consult
from ..merging.filing import Desk
from ..merging.heads import Merge, Trees
from ..merging.launching import Request, attached, finish, launch, request, settle
from ..merging.previewing import inspect, preview, questions
from ..repository import Repository
from .console import as_json, say
from .person import person
from .previews import show
from .recipes import Pairs, recipe_options
from .strategies import describe, listed

Function = TypeVar("Function", bound=Callable[..., Any])

_GIT = (
    click.option("-m", "--message", metavar="MSG", help="The commit's message; how models were merged is added."),
    click.option("--edit/--no-edit", default=None, help="Whether to edit the message; git decides by itself."),
    click.option("--no-commit", is_flag=True, help="Stop before the commit."),
    click.option("--squash", is_flag=True, help="Make no commit, and let the next one have one parent."),
    click.option(
        "--ff/--no-ff", default=False, show_default=True, help="Whether a branch may just move to one expert."
    ),
    click.option("--allow-unrelated-histories", "unrelated", is_flag=True, help="Merge without a common ancestor."),
)


def git_options(function: Function) -> Function:
    """Options of git merge, handed on as one argument: ``words`` for it."""

    @functools.wraps(function)
    def collected(  # noqa: PLR0913 - one for each option
        *arguments: Any,
        message: str | None,
        edit: bool | None,
        no_commit: bool,
        squash: bool,
        ff: bool,
        unrelated: bool,
        **values: Any,
    ) -> Any:
        words = ["--ff" if ff or squash else "--no-ff"]  # git has no squash without the first
        words += [word for word, on in (("--no-commit", no_commit), ("--squash", squash)) if on]
        words += ["--allow-unrelated-histories"] if unrelated else []
        words += [] if edit is None else ["--edit" if edit else "--no-edit"]
        words += [] if message is None else ["-m", message]
        return function(*arguments, words=words, **values)

    for option in reversed(_GIT):
        collected = option(collected)
    return cast(Function, collected)


@click.command()
@click.argument("commits", nargs=-1, metavar="COMMIT...")
@recipe_options()
@git_options
@click.option("-n", "--dry-run", is_flag=True, help="Show what would become of each model, and change nothing.")
@click.option("-i", "--interactive", is_flag=True, help="Ask what becomes of each parameter that is not the same.")
@click.option("--abort", is_flag=True, help="Give a merge with conflicts up: everything is as it was before.")
@click.option("--continue", "go_on", is_flag=True, help="Commit a merge whose conflicts are resolved.")
@click.option("--list", "listing", is_flag=True, help="List the strategies with their options.")
@click.option("--explain", metavar="NAME", help="Describe a strategy: formula, paper, options.")
@as_json
def merge(  # noqa: PLR0913 - one for each option
    commits: tuple[str, ...],
    *,
    pairs: Pairs,
    words: Sequence[str],
    dry_run: bool,
    interactive: bool,
    abort: bool,
    go_on: bool,
    listing: bool,
    explain: str | None,
    as_json: bool,
) -> int:
    """Merge the models of any number of branches.

    git merges as 'git merge --no-ff -s theta' does, with its own messages and exit codes: models parameter by
    parameter, by a strategy, all other files as ever. Nothing is written unless all models can be merged. The commit
    records strategy, weights, experts and base in its message, so that 'git theta verify' can repeat the merge.

    A branch that is an ancestor of what is merged, as main is of experts that started from it, is no expert itself.
    Weights, and recipe files, may name the experts as they are named here.

    \b
    Example:
      git theta merge legal medical code
      git theta merge legal medical -s ties -o density=0.2 --weights 0.7,0.3
      git theta merge legal medical --rule '*.embed.* ours' --dry-run
      git theta merge --recipe merge.yaml
    """
    if sum(map(bool, (abort, go_on, listing, explain, dry_run, interactive))) > 1:
        raise UsageError("only one of --abort, --continue, --list, --explain, --dry-run and --interactive goes")
    if as_json and not (listing or explain or dry_run):
        raise UsageError("--json goes with --dry-run, --list or --explain")
    if listing or explain:
        return describe(explain, as_json=as_json) if explain else listed(as_json=as_json)
    repository = Repository()
    repository.worktree()
    if abort or go_on:
        return _resume(repository, abort=abort)
    wanted = request(repository, commits, pairs)
    plan, how = settle(repository, wanted)
    if plan.base is None:
        say("theta: the models share no common ancestor: strategies that need a base cannot merge them")
    if dry_run:
        Device(how.device)  # raises where there is none
        return show(preview(repository, plan, how), plan, as_json=as_json)
    if interactive:
        wanted = _asked(repository, (plan, how), wanted)
    return launch(repository, wanted, words)


def _resume(repository: Repository, *, abort: bool) -> int:
    code = attached(repository, "--abort" if abort else "--continue")
    if not code and abort:
        pending.forget(repository.git)
    elif not code:
        finish(repository.git)
    return code


def _asked(repository: Repository, planned: tuple[Merge, Chosen], wanted: Request) -> Request:
    """The same merge with the rules that a person makes of it."""
    plan, how = planned
    found = inspect(repository, plan)
    with repository.git.blobs() as blobs, Desk(repository) as desk:
        trees = Trees(repository.git, blobs)
        asked = [(question, [head.name for head in heads]) for question, heads in questions(trees, found, how)]
        rules = consult(asked, desk.opened, person())
    return Request(wanted.experts, (*wanted.pairs, *(("rule", rule) for rule in rules)))

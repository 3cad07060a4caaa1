"""``git theta resolve``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..errors import ThetaError, UsageError
from ..manifest import spell
from ..merging.byhand import laid_out, lay_out, take
from ..merging.consulting import consult
from ..merging.filing import Desk, Merged, Question
from ..merging.launching import placed
from ..merging.outright import remember
from ..merging.unmerged import Conflict, Stages, changed, conflict, settle, unmerged, whole
from ..repository import Repository
from .console import number, printable, say, shown
from .person import person
from .recipes import Pairs, recipe_options


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--ours", is_flag=True, help="Take our version as it is.")
@click.option("--theirs", is_flag=True, help="Take their version as it is.")
@click.option("--base", is_flag=True, help="Take the common ancestor's version as it is.")
@recipe_options(without=("base",))
@click.option("-i", "--interactive", is_flag=True, help="Ask what becomes of each parameter that is not the same.")
@click.option("--manual", is_flag=True, help="Put the versions beside the file; the second time, take the file.")
@click.option("--take", "result", metavar="FILE", type=click.Path(), help="Take this file as the result.")
def resolve(
    paths: tuple[str, ...],
    *,
    pairs: Pairs,
    interactive: bool,
    manual: bool,
    result: str | None,
    **sides: bool,
) -> int:
    """End the conflicts of models.

    For models that git has left unmerged: all of them, or those at PATH. Without options they are merged as it is
    configured; with --strategy, --rule and the other options of 'git theta merge' as these say. The result is written
    to the worktree and staged; commit it, or go on with the rebase, as ever. Either all files are resolved, or none.
    A merge's message says how, whichever way that is, for 'git theta verify'.

    With --manual the versions are written beside each file, as model.ours.pt, model.theirs.pt and model.base.pt. Make
    what you want of them, put it in the place of model.pt, and run the command again: that stages the file, and removes
    the others. With --take a file of another name is the result.

    \b
    Example:
      git theta resolve model.pt --theirs
      git theta resolve --strategy average --rule '*.embed.* ours'
      git theta resolve --manual model.pt
    """
    side = next((name for name, chosen in sides.items() if chosen), None)
    if sum(map(bool, (*sides.values(), interactive, manual, result))) > 1 or (pairs and (side or manual or result)):
        raise UsageError("only one way to resolve goes: one side, a strategy, --interactive, --manual or --take")
    repository = Repository()
    items = unmerged(repository, paths)
    if not items:
        say("no model has a conflict")
        return 0
    if manual or result:
        return _by_hand(repository, items, result)
    if busy := [item for item in items if changed(repository, item)]:
        way = "'--take PATH' takes it as the result, 'git checkout --ours PATH' drops it"
        raise ThetaError(f"{spell(busy[0].path)} was changed since git left it in the worktree: {way}")
    with Desk(repository) as desk:
        if side:
            code = _end(repository, [(item, whole(item, side)) for item in items])
            _note(repository, items, side)
            return code
        found = conflict(repository, [placed(repository, *pair) for pair in pairs])
        if interactive:
            found = _asked(repository, found, items, desk)
        results = list(zip(items, desk.merge_all([found.question(item) for item in items]), strict=True))
        code = _end(repository, results)
        if found.chosen is None:
            _note(repository, items)
        for _, merged in results:
            found.remember(merged)
        return code


def _asked(repository: Repository, found: Conflict, items: Sequence[Stages], desk: Desk) -> Conflict:
    """The same conflicts with the rules that a person makes of them."""
    questions: list[tuple[Question, Sequence[str]]] = [(found.question(item), ("ours", "theirs")) for item in items]
    rules = consult(questions, desk.opened, person())
    return conflict(repository, [*found.pairs, *(("rule", text) for text in rules)])


def _note(repository: Repository, items: Sequence[Stages], side: str | None = None) -> None:
    """Record how files were resolved; that it fails is no reason to leave a conflict."""
    try:
        remember(repository, items, side)
    except ThetaError as error:
        say(f"theta: the commit will not say how: {printable(str(error))}")


def _end(repository: Repository, results: Sequence[tuple[Stages, Merged]]) -> int:
    outcomes = settle(repository, results)
    for outcome in outcomes:
        if outcome.problem:
            say(f"theta: {shown(outcome.path)}: {outcome.problem}; left as a stub: 'git theta pull' tries again")
    say(f"{number(len(results), 'model')} resolved")
    return int(any(outcome.problem for outcome in outcomes))


def _by_hand(repository: Repository, items: Sequence[Stages], result: str | None) -> int:
    if result is not None and len(items) != 1:
        raise UsageError(f"--take has one file for {number(len(items), 'model')}: name the PATH")
    ready = [item for item in items if result is not None or laid_out(repository, item)]
    new = [item for item in items if item not in ready]
    with Desk(repository) as desk:
        written = lay_out(repository, new, desk)
    for item in ready:
        for path in take(repository, item, result):
            say(f"theta: {shown(repository.relative(path))} was changed: it is left there")
        _note(repository, [item])
        say(f"{shown(repository.relative(item.path))}: resolved by hand")
    for path in written:
        say(f"{shown(repository.relative(path))}: written")
    for item in new:
        path = shown(repository.relative(item.path))
        say(f"put the result in the place of {path}, then: git theta resolve --manual {path}")
    return 0

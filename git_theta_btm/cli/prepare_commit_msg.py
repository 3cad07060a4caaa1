"""``git theta prepare-commit-msg``: what the hook runs."""

from __future__ import annotations

import click

from ..merging import pending
from ..merging.messages import append
from ..repository import Repository


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("source", default="")
@click.argument("commit", default="")
def prepare_commit_msg(file: str, source: str, commit: str) -> None:
    """Tell in a message what was merged; a hook runs it.

    Run by the hook of that name, which 'git theta install --local' and 'git theta track' put in place.

    \b
    Example:
      git theta prepare-commit-msg .git/MERGE_MSG merge
    """
    git = Repository().git
    lines = pending.take(git)
    if source != "commit" and (lines or source == "merge"):  # of a merge that is another by now, nothing is told
        with open(file, encoding="utf-8", errors="surrogateescape", newline="") as message:
            text = message.read()
        with open(file, "w", encoding="utf-8", errors="surrogateescape", newline="") as message:
            message.write(append(text, lines, git.configured("core.commentChar", "#")))
    if not pending.merging(git):  # it was committed, or given up
        pending.forget(git)

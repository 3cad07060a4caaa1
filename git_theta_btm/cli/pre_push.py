"""``git theta pre-push``: what the hook runs."""

from __future__ import annotations

import os
import sys

import click

from ..remotes.pushing import Lines, Remote, push
from ..remotes.transfer import opened
from ..repository import Repository
from ..setup.install import has_lfs
from .console import number, say, size


@click.command()
@click.argument("remote")
@click.argument("url")
@click.option("--lfs", is_flag=True, help="Run git-lfs's own hook if there is something for it.")
def pre_push(remote: str, url: str, *, lfs: bool) -> int:
    """Upload what a push needs; a hook runs it.

    Run by the hook of that name, which 'git theta install --local' and 'git theta track' put in place.

    \b
    Example:
      git theta pre-push origin https://example.com/models.git
    """
    lines = Lines.of(sys.stdin.read())
    repository = Repository()
    pointers = True
    if os.path.isdir(repository.store.root):  # a hook that all repositories share has nothing to do in most
        with opened(repository) as port:
            pushed = push(port, Remote(remote, (url,), lines.keeps), lines.commits)
        for warning in pushed.warnings:
            say(f"theta: warning: {warning}")
        if pushed.sent:
            say(f"theta: {number(len(pushed.sent), 'object')} pushed, {size(sum(blob.size for blob in pushed.sent))}")
        pointers = pushed.pointers
    if not (lfs and lines.text and pointers and has_lfs(repository.git)):
        return 0
    return repository.git.run("lfs", "pre-push", remote, url, stdin=os.fsencode(lines.text), progress=True).returncode

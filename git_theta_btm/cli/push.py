"""``git theta push``."""

from __future__ import annotations

import click

from ..errors import ThetaError
from ..git import Git
from ..remotes.fetching import remote_of
from ..remotes.pushing import Pushed, Remote, preview
from ..remotes.pushing import push as upload
from ..remotes.transfer import Need, opened, remotes
from ..repository import Repository
from .console import as_json, columns, data, dump, number, say, shown, size


@click.command()
@click.argument("remote", required=False)
@click.argument("revisions", nargs=-1, metavar="[REV]...")
@click.option("--all", "everything", is_flag=True, help="All objects of all refs, or of the whole history of each REV.")
@click.option("--dry-run", is_flag=True, help="Upload nothing; list what would be.")
@as_json
def push(remote: str | None, revisions: tuple[str, ...], *, everything: bool, dry_run: bool, as_json: bool) -> None:
    """Upload objects to a remote.

    'git push' does this by itself once the hook is there; commits travel by 'git push' alone. Without REV, the objects
    of HEAD. What the remote's own refs lead to is taken to be there; with --all the remote is asked for each object,
    which repairs one that was pushed to without the hook.

    \b
    Example:
      git theta push
      git theta push --all backup
    """
    repository = Repository()
    target = Remote.of(repository.git, remote_of(repository, remote, "push") if remote else _default(repository.git))
    wanted = _commits(repository.git, revisions, everything=everything)
    with opened(repository) as port:
        if dry_run:
            _list(preview(port, target, wanted, everything=everything), as_json=as_json)
            return
        pushed = upload(port, target, wanted, everything=everything)
    _report(pushed, target, as_json=as_json)


def _default(git: Git) -> str:
    known = remotes(git)
    if not known:
        raise ThetaError("there is no remote: git remote add origin <url>")
    return known[0]


def _commits(git: Git, revisions: tuple[str, ...], *, everything: bool) -> list[str]:
    if everything and not revisions:
        return [oid for oid in git.text("for-each-ref", "--format=%(objectname)").split("\n") if oid]
    names = revisions or ("HEAD",)
    return [_commit(git, name) for name in names]


def _commit(git: Git, name: str) -> str:
    found = git.oid(name)
    if not found:
        raise ThetaError(f"there is no revision {name!r}: 'git branch --all' lists those that have names")
    return found


def _list(needs: list[Need], *, as_json: bool) -> None:
    if as_json:
        dump(objects=[{"path": n.path, "owner": n.owner, "object": n.blob.digest, "size": n.blob.size} for n in needs])
        return
    for line in columns([(n.blob.digest, size(n.blob.size), shown(n.path), n.owner) for n in needs]):
        data(line)


def _report(pushed: Pushed, remote: Remote, *, as_json: bool) -> None:
    for warning in pushed.warnings:
        say(f"theta: warning: {warning}")
    total = sum(blob.size for blob in pushed.sent)
    if as_json:
        dump(remote=remote.name, asked=pushed.asked, objects=len(pushed.sent), bytes=total)
    else:
        say(f"{number(len(pushed.sent), 'object')} pushed to {shown(remote.name)}, {size(total)}")

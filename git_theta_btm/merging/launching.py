"""Launching: ``git theta merge`` hands its work to ``git merge -s theta``, so that there is one way to merge.

What it adds stands before and after that: whatever makes no sense is said before git does anything, and the trailers
are in the commit even where git does not run our hook.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..care.versions import located
from ..errors import UsageError
from ..git import Git
from ..repository import Repository
from . import pending, trailers
from .choosing import Chosen, choose
from .configured import mergeable
from .drafts import Prior
from .heads import Head, Merge, commit_of, common_ancestor
from .reading import load, weights

_FILES = ("statistics", "tokenizer")  # in the trees of the experts
_ANY = "model"  # a path as good as another, where there is no model yet


@dataclass(frozen=True, slots=True)
class Request:
    """A merge that was asked for: the experts as the user named them, and keys and values as ``-X`` has them."""

    experts: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def request(repository: Repository, experts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Request:
    """The experts, or those that a recipe file names, and the options with files as git's directory has them.

    Raises ``UsageError`` if there are none.
    """
    found = tuple(placed(repository, key, value) for key, value in pairs)
    named = tuple(name for key, value in found if key == "recipe" for name in load(value).experts)
    if not experts and not named:
        raise UsageError("which commits? Name them, or give a recipe that does")
    return Request(tuple(experts) or tuple(dict.fromkeys(named)), found)


def placed(repository: Repository, key: str, value: str) -> tuple[str, str]:
    """A key and a value; a file of the user's as git's directory has it."""
    if key in ("recipe", "prior") or (key == "weights" and isinstance(weights(value), Prior)):
        return key, os.path.abspath(os.path.join(repository.here.directory, value))
    return key, located(repository, value) if key in _FILES else value


def settle(repository: Repository, wanted: Request) -> tuple[Merge, Chosen]:
    """The merge that git would do, and how. Raises ``ThetaError`` for a commit that does not exist, and ``UsageError``
    for a strategy, an option or weights that make no sense."""
    git = repository.git
    remotes = _reduced(git, [Head(commit_of(repository.here, name), name) for name in wanted.experts])
    ancestor = common_ancestor(git, [git.text("rev-parse", "HEAD"), *(head.commit for head in remotes)])
    merge = Merge(repository, remotes, [ancestor] if ancestor else [])
    if any(key == "weights" and isinstance(weights(value), tuple) and weights(value) for key, value in wanted.pairs):
        _check_order(git, merge)
    chosen = choose(git, merge, wanted.pairs)
    paths = mergeable(git, [model.path for model in repository.models()])
    chosen.record(paths[0] if paths else _ANY)
    return merge, chosen


def _check_order(git: Git, merge: Merge) -> None:
    """Raise ``UsageError`` if weights without names would be another expert's: git puts HEAD first, and leaves out what
    HEAD has in its history."""
    ours = merge.ours
    for place, head in enumerate(merge.remotes):
        if head.commit == ours.commit and place:
            raise UsageError(f"{ours.name} is HEAD, which comes first: name it first, or name the weights")
        if head.commit != ours.commit and git.contains(ours.commit, head.commit):
            raise UsageError(f"{head.name} is in {ours.name} already, so git merges the others: name their weights")


def _reduced(git: Git, heads: Sequence[Head]) -> list[Head]:
    """The heads as git merges them: each commit once, without those that another one has in its history."""
    unique = list({head.commit: head for head in reversed(heads)}.values())[::-1]
    kept = git.text("merge-base", "--independent", *(head.commit for head in unique)).split()
    return [head for head in unique if head.commit in kept]


# -- git's part --------------------------------------------------------------------------------------------------------


def launch(repository: Repository, wanted: Request, words: Sequence[str]) -> int:
    """Run ``git merge`` with these words, attached to the terminal; returns its exit code."""
    if not pending.merging(repository.git):  # else git refuses to begin another, and that one needs its record
        pending.forget(repository.git)
    options = [f"-X{key}={value}" for key, value in wanted.pairs]
    code = attached(repository, "-s", "theta", *options, *words, "--", *wanted.experts)
    finish(repository.git)
    return code


def attached(repository: Repository, *words: str) -> int:
    """``git merge`` where it finds the strategy, which is beside this Python; returns its exit code."""
    path = os.pathsep.join([os.path.dirname(os.path.abspath(sys.executable)), os.environ.get("PATH", os.defpath)])
    return repository.here.with_environment(PATH=path).attached("merge", *words)


def finish(git: Git) -> None:
    """Put the trailers where they are not yet: into the message that waits for the commit, or into the commit."""
    heads, lines = pending.left(git)
    if not lines:
        return
    comment = git.configured("core.commentChar", "#")
    if pending.take(git):
        _extend(git, "MERGE_MSG", lines, comment)
        return  # the hook needs the record when the merge is committed
    head, *parents = git.text("rev-list", "--parents", "--max-count=1", "HEAD").split()
    if head == heads[0]:
        _extend(git, "SQUASH_MSG", lines, comment)
    elif parents in (heads, heads[1:]):
        _amend(git, lines, comment)
    pending.forget(git)


def _extend(git: Git, name: str, lines: Sequence[str], comment: str) -> None:
    """Add the trailers to a message that git keeps, if it does."""
    path = os.path.join(git.directory, git.text("rev-parse", "--git-path", name))
    with suppress(FileNotFoundError):
        with open(path, "rb") as file:
            text = file.read()
        with open(path, "wb") as file:
            file.write(trailers.append(text, lines, comment))


def _amend(git: Git, lines: Sequence[str], comment: str) -> None:
    """Add the trailers to the commit that was just made, unless the hook has."""
    message = git.run("log", "-1", "--format=%B").stdout
    text = trailers.append(message.rstrip(b"\n") + b"\n", lines, comment)
    if text.strip() != message.strip():
        quiet = ("-c", f"core.hooksPath={os.devnull}")  # hooks have had their say: they would add it once more
        options = ("--amend", "--only", "--no-verify", "--quiet", "--cleanup=verbatim")
        git.run(*quiet, "commit", *options, "-F", "-", stdin=text)

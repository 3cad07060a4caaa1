"""Mixing: what becomes of the models that several heads of a merge have changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..git import Git
from ..manifest import loads
from ..repository import Repository
from . import driver, pending
from .asking import ask
from .choosing import Chosen, choose
from .computing import Device
from .filing import Desk, Merged
from .gathering import Unmerged, split
from .globs import warnings
from .heads import Merge, Trees
from .records import together


@dataclass(frozen=True, slots=True)
class Mixed:
    """A merged model, its row in the index, and the blobs that stood for it; its manifest is in git's store."""

    row: Unmerged
    merged: Merged
    sources: frozenset[str]


@contextmanager
def mixed(
    repository: Repository, merge: Merge, gathered: str, options: Sequence[tuple[str, str]]
) -> Iterator[list[Mixed]]:
    """The models that a gathered tree says more than one head changed, merged as options and configuration say, with
    how it was done kept until it is committed. Their files are gone in the end."""
    git = repository.git
    chosen = choose(git, merge, tuple(options))
    with Desk(repository, Device(chosen.device)) as desk:
        models = _merge_all(repository, merge, gathered, (chosen, desk))
        if models:
            record = together({model.row.path: chosen.record(model.row.path) for model in models})
            blobs = {model.row.path: model.row.oid for model in models}
            pending.write(git, record, [merge.ours.commit, *(head.commit for head in merge.remotes)], blobs)
        yield models


def _merge_all(repository: Repository, merge: Merge, gathered: str, means: tuple[Chosen, Desk]) -> list[Mixed]:
    """All are planned before the first one is computed."""
    chosen, desk = means
    with repository.git.blobs() as blobs:
        trees = Trees(repository.git, blobs)
        changed = [(found, *split(text)) for found, text in trees.changed(merge.ours.commit, gathered)]
        sources = {found.path: frozenset([found.oid, *known]) for found, _, known in changed if known}
        questions = [ask(trees, found.path, known, chosen) for found, _, known in changed if known]
    models = [
        *(tip for question in questions for tip in question.tips),
        *(loads(text) for _, text, known in changed if not known),
    ]
    for line in warnings(chosen.draft, models):
        driver.say(f"warning: {line}")
    merged = desk.merge_all(questions)
    return [Mixed(_row(repository.git, gathered, item), item, sources[item.path]) for item in merged]


def _row(git: Git, tree: str, merged: Merged) -> Unmerged:
    oid = git.run("hash-object", "-w", "--stdin", stdin=merged.manifest.dumps()).stdout.decode().strip()
    mode = git.fields("ls-tree", "-z", tree, "--", f":(literal){merged.path}")[0].split()[0]
    return Unmerged(mode, oid, "0", merged.path)

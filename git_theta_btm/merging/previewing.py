"""Previewing: what a merge would do to each model, from manifests alone. Nothing is written but git's loose objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ThetaError
from ..manifest import Entry
from ..repository import Repository
from .asking import ask
from .choosing import Chosen
from .filing import Question
from .gathering import gather, split
from .globs import warnings
from .heads import Head, Merge, Trees
from .program import command
from .records import together
from .resolve import BASE, Step
from .trailers import dumps


@dataclass(frozen=True, slots=True)
class Model:
    """A model file that the merge would change: its blob, which may be a gathered one, and what was gathered."""

    path: str
    oid: str
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """What would become of a parameter: ``equal`` everywhere, ``taken`` from a model as it is, or ``computed``."""

    name: str
    type: str
    how: str
    by: str  # the strategy, or the model that it is taken from


@dataclass(frozen=True, slots=True)
class File:
    """What would become of a model file: ``problem`` says why it cannot be merged; ``taken`` who alone changed it."""

    path: str
    taken: str = ""
    parameters: tuple[Parameter, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a merge would do. ``trailers`` is how, in the commit's message; ``conflicts`` are other files; ``warnings``
    what was said to no effect."""

    trailers: tuple[str, ...]
    files: tuple[File, ...]
    conflicts: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether the merge would be made."""
        return not self.conflicts and not any(file.problem for file in self.files)


@dataclass(frozen=True, slots=True)
class Inspected:
    """The models that a merge would change, and the paths of conflicts in other files."""

    models: tuple[Model, ...]
    conflicts: tuple[str, ...]


def inspect(repository: Repository, merge: Merge) -> Inspected:
    """Let git merge everything else in memory. Raises ``ThetaError`` if git cannot."""
    git, ours = repository.git, merge.ours.commit
    gathered = gather(git, [ours, *(head.commit for head in merge.remotes)], command("gather"))
    with git.blobs() as blobs:
        changed = Trees(git, blobs).changed(ours, gathered.tree)
        models = [Model(place.path, place.oid, tuple(split(text)[1])) for place, text in changed]
    return Inspected(tuple(models), tuple(dict.fromkeys(stage.path for stage in gathered.conflicts)))


def questions(trees: Trees, found: Inspected, chosen: Chosen) -> Iterator[tuple[Question, list[Head]]]:
    """What is to be merged, and for each file the heads that its tips are."""
    assert chosen.merge
    for model in found.models:
        if model.known:
            sides = trees.sides(chosen.merge.experts, chosen.merge.base, model.path, model.known)
            yield ask(trees, model.path, model.known, chosen), [side.head for side in sides]


def preview(repository: Repository, merge: Merge, chosen: Chosen) -> Preview:
    """What the merge would do. Raises ``UsageError`` for a recipe that makes no sense."""
    found = inspect(repository, merge)
    with repository.git.blobs() as blobs:
        trees = Trees(repository.git, blobs)
        asked = list(questions(trees, found, chosen))
        files = [_planned(question, heads) for question, heads in asked]
        files += [File(model.path, _owner(trees, merge, model)) for model in found.models if not model.known]
        tips = [tip for question, _ in asked for tip in question.tips]
        alone = [manifest for model in found.models if not model.known and (manifest := trees.manifest(model.oid))]
        said = warnings(chosen.draft, [*tips, *alone])
    merged = [model.path for model in found.models if model.known]
    lines = dumps(together({path: chosen.record(path) for path in merged})) if merged else []
    return Preview(tuple(lines), tuple(sorted(files, key=lambda file: file.path)), found.conflicts, said)


def _owner(trees: Trees, merge: Merge, model: Model) -> str:
    for head in merge.remotes:
        place = trees.find(head.commit, model.path, [model.oid])
        if place and place.oid == model.oid:
            return head.name
    return "git's merge"


def _planned(question: Question, heads: Sequence[Head]) -> File:
    try:
        steps = question.steps
    except ThetaError as error:
        return File(question.path, problem=str(error))
    tips = [{entry.name: entry for entry in tip.entries} for tip in question.tips]
    return File(question.path, parameters=tuple(_parameter(step, tips, heads) for step in steps))


def _parameter(step: Step, tips: Sequence[Mapping[str, Entry]], heads: Sequence[Head]) -> Parameter:
    type_ = str(tips[0][step.name].tensor)
    if step.choice:
        return Parameter(step.name, type_, "computed", step.choice.name)
    if step.take == 0 and len({tip[step.name].digest if step.name in tip else None for tip in tips}) == 1:
        return Parameter(step.name, type_, "equal", heads[0].name)
    return Parameter(step.name, type_, "taken", "the base" if step.take == BASE else heads[step.take or 0].name)

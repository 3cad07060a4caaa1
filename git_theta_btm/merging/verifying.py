"""Verifying: a merge made once more from what its commit says, and compared with what the commit holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryFile

from .. import formats
from ..api import Checkpoint
from ..errors import MissingObject, ThetaError
from ..floats import MANTISSA
from ..manifest import Entry, Manifest, spell
from ..repository import Repository
from ..source import FileSource, Part, Source
from ..store import Forgetful
from ..tensor import Tensor
from . import trailers
from .asking import Setting, of_sides
from .beside import Beside
from .distances import comparable, distance, kind_of
from .filing import Desk, Question
from .heads import Head, Side, Trees, commit_of, common_ancestor
from .metering import Meter
from .producing import Workshop, produce
from .records import Expert, Record
from .resolve import Step

_COARSE = 2  # bits below the exponent of the coarsest type of numbers
_LEAST = 1e-9  # relative: what a matrix library may be off by in float64, whatever its build


@dataclass(frozen=True, slots=True)
class Difference:
    """What a merge does not hold as its record says: of the whole file if no ``parameter`` is named."""

    path: str
    parameter: str
    problem: str


@dataclass(frozen=True, slots=True)
class Verified:
    """A model of the merge: how many parameters were computed, and which of these only agree within a tolerance."""

    path: str
    parameters: int
    computed: int
    tolerated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a commit's record says, and how the commit agrees with it."""

    commit: str
    record: Record
    models: tuple[Verified, ...]
    differences: tuple[Difference, ...]


def recorded(repository: Repository, revision: str) -> tuple[str, Record]:
    """A commit and the merge that it records. Raises ``ThetaError`` if it records none."""
    commit = commit_of(repository.here, revision)
    record = trailers.loads(repository.git.text("log", "-1", "--format=%B", commit))
    if record is None:
        raise ThetaError(f"{revision} records no merge of models: its message has no trailer Theta-Merge")
    return commit, record


def verify(repository: Repository, revision: str) -> Report:
    """Merge every model of a commit again as it records. Objects that are not here are fetched; none is stored.

    Raises ``ThetaError`` for a commit that records no merge, or whose experts are not here, and ``MissingObject``.
    """
    commit, record = recorded(repository, revision)
    with repository.git.blobs() as blobs, Desk(repository) as desk:
        trees = Trees(repository.git, blobs)
        check = _Check(repository, desk, trees, (commit, record))
        for path, oid in trees.models(commit).items():
            check.model(path, oid)
    return Report(commit, record, tuple(check.verified), tuple(check.differences))


class _Check:
    def __init__(self, repository: Repository, desk: Desk, trees: Trees, merge: tuple[str, Record]) -> None:
        self._repository, self._desk, self._trees = repository, desk, trees
        self._commit, record = merge
        self._experts = [_here(repository, expert) for expert in record.experts]
        parents = repository.git.text("rev-list", "--parents", "--max-count=1", self._commit).split()[1:]
        heads = list(dict.fromkeys([*parents, *(head.commit for head in self._experts)]))  # a squash has one parent
        ancestor = common_ancestor(repository.git, heads) if len(heads) > 1 else None
        self._record = record
        self._setting = Setting(self._experts, ancestor, record.base, record.recipe)
        self._moved = self._elsewhere()
        self.verified: list[Verified] = []
        self.differences: list[Difference] = []

    def _elsewhere(self) -> list[tuple[str, Manifest]]:
        """The models of experts that stand elsewhere in the merge."""
        kept = self._trees.models(self._commit)
        found = {
            oid for head in self._experts for path, oid in self._trees.models(head.commit).items() if path not in kept
        }
        return [(oid, manifest) for oid in sorted(found) if (manifest := self._trees.manifest(oid))]

    def model(self, path: str, oid: str) -> None:
        """Compare one model of the merge."""
        actual = self._trees.manifest(oid)
        assert actual
        known = [other for other, manifest in self._moved if _shape(manifest) == _shape(actual)]
        sides = self._trees.sides(self._experts, self._setting.ancestor, path, known)
        if not sides:
            self._differs(path, "", "none of the experts has it")
        elif len({side.oid for side in sides}) == 1:
            self._whole(path, actual, sides[0])
        else:
            try:
                setting = replace(self._setting, recipe=self._record.of(path))
                self._again(path, actual, of_sides(self._trees, path, setting, known))
            except MissingObject:
                raise
            except ThetaError as error:
                self._differs(path, "", str(error).removeprefix(f"{spell(path)}: "))

    def _differs(self, path: str, parameter: str, problem: str) -> None:
        self.differences.append(Difference(path, parameter, problem))

    def _whole(self, path: str, actual: Manifest, side: Side) -> None:
        """Of what one expert alone changed, nothing is computed."""
        self._compare(path, actual, side.manifest, ())
        self.verified.append(Verified(path, len(actual.entries), 0))

    def _again(self, path: str, actual: Manifest, question: Question) -> None:
        steps = question.steps
        computed = [step.name for step in steps if step.choice]
        tolerated: tuple[str, ...] = ()
        if all(step.take == 0 for step in steps):
            self._compare(path, actual, question.tips[0], ())
        else:
            with self._remade(question, steps) as (file, expected):
                tolerated = tuple(self._close(actual, (file, expected), steps))
                self._compare(path, actual, expected, tolerated)
        self.verified.append(Verified(path, len(actual.entries), len(computed), tolerated))

    @contextmanager
    def _remade(self, question: Question, steps: Sequence[Step]) -> Iterator[tuple[Source, Manifest]]:
        """The merged file, and the manifest that it has."""
        self._desk.gather((*question.tips, *([question.base] if question.base else []), *question.statistics))
        directory = os.path.join(self._repository.store.root, "tmp")
        os.makedirs(directory, exist_ok=True)
        with TemporaryFile(dir=directory, buffering=0) as file:
            workshop = Workshop(Beside(self._repository.store), Forgetful(), "raw", progress=Meter("verifying"))
            expected = produce(self._desk.models(question), steps, file.fileno(), workshop)
            yield FileSource(file.fileno()), expected

    def _close(self, actual: Manifest, remade: tuple[Source, Manifest], steps: Sequence[Step]) -> Iterator[str]:
        """The parameters that differ, but by no more than their strategy may."""
        file, expected = remade
        loose = {step.name for step in steps if step.choice and not step.choice.strategy.exact}
        ours = {entry.name: entry for entry in actual.entries}
        wanted = [entry for entry in expected.entries if entry.name in loose and entry.name in ours]
        different = [entry for entry in wanted if ours[entry.name].digest != entry.digest]
        if different:
            self._desk.gather([actual])
            places = {item.name: item.offset for item in formats.locate(file)[1]}
        for entry in different:
            with Checkpoint(actual, self._repository.store).source(entry.name) as source:
                if comparable(ours[entry.name].tensor, entry.tensor):
                    part = Part(file, places[entry.name], entry.tensor.nbytes)
                    if distance(part, source, entry.tensor) <= tolerance(entry):
                        yield entry.name

    def _compare(self, path: str, actual: Manifest, expected: Manifest, tolerated: Sequence[str]) -> None:
        """Note each parameter that is not what is expected, and the file if it is another with the same parameters."""
        found = {entry.name: entry for entry in actual.entries}
        wanted = {entry.name: entry for entry in expected.entries}
        before = len(self.differences)
        for name in dict.fromkeys([*wanted, *found]):
            if name not in found or name not in wanted:
                self._differs(path, name, "it is not in the merge" if name in wanted else "no expert has it")
            elif found[name] != wanted[name] and name not in tolerated:
                self._differs(path, name, f"it is {_what(found[name])}, and the merge makes {_what(wanted[name])}")
        if before == len(self.differences) and actual.digest != expected.digest and not tolerated:
            self._differs(path, "", "its parameters agree, and the bytes between them do not")


def _here(repository: Repository, head: Expert) -> Head:
    try:
        return Head(commit_of(repository.git, head.commit), head.name)
    except ThetaError:
        raise ThetaError(f"the expert {head.name} is not here: 'git fetch' commit {head.commit} first") from None


def _shape(manifest: Manifest) -> list[tuple[str, Tensor]]:
    return [(entry.name, entry.tensor) for entry in manifest.entries]


def _what(entry: Entry) -> str:
    return f"{entry.tensor} {entry.digest}"


# -- what is only nearly the same --------------------------------------------------------------------------------------


def tolerance(entry: Entry) -> float:
    """How far a parameter may be off, by the norm of the difference, where a strategy is not exact: two units in the
    last place of its type, as a number that lies between two neighbours may be rounded to either."""
    return max(_LEAST, 2.0 ** (1 - MANTISSA.get(kind_of(entry.tensor), _COARSE)))

"""Verifying: a merge made once more from what its commit says, and compared with what the commit holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

from .. import formats
from ..api import Checkpoint
from ..errors import MergeConflict, MissingObject, ThetaError
from ..filters.smudge import smudge
from ..floats import MANTISSA
from ..manifest import Entry, Manifest, spell
from ..repository import Repository
from ..source import FileSource, Part, Source
from ..store import Forgetful
from ..tensor import Tensor
from . import trailers
from .asking import Setting, of_sides
from .belonging import ancestors, belongs, parents_of
from .beside import Beside
from .distances import comparable, distance, kind_of
from .filing import Desk, Question
from .heads import Head, Side, Trees, commit_of
from .metering import Meter
from .producing import Workshop, produce
from .records import NONE, Expert, Record, Taken
from .resolve import Step

_OF_ANOTHER = "the record is of another commit, of which this one is a cherry-pick or a rebase: it says nothing of this"
_UNSAID = "how its conflict was resolved is not recorded"
_COARSE = 2  # bits below the exponent of the coarsest type of numbers
_LEAST = 1e-9  # relative: what a matrix library may be off by in float64, whatever its build


@dataclass(frozen=True, slots=True)
class Difference:
    """What a merge does not hold as its record says: of the whole file if no ``parameter`` is named, of all files if
    no ``path`` is."""

    path: str
    parameter: str
    problem: str


@dataclass(frozen=True, slots=True)
class Verified:
    """A model of the merge: how many parameters were computed, and which of these only agree within a tolerance.

    One that was not merged is of the commit that it was ``taken`` from, or was made ``by_hand``: nothing repeats that.
    """

    path: str
    parameters: int
    computed: int
    tolerated: tuple[str, ...] = ()
    taken: str = ""
    by_hand: bool = False


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
        models = trees.models(commit)
        for path, oid in models.items():
            check.model(path, oid)
        for path in sorted(record.whole.keys() - models.keys()):
            check.differs(path, "", "it is recorded, and not in the commit")
    foreign = check.differences and not check.named and not belongs(repository.git, record, commit)
    differences = [Difference("", "", _OF_ANOTHER)] if foreign else check.differences
    return Report(commit, record, tuple(check.verified), tuple(differences))


class _Check:
    def __init__(self, repository: Repository, desk: Desk, trees: Trees, merge: tuple[str, Record]) -> None:
        self._repository, self._desk, self._trees = repository, desk, trees
        self._commit, record = merge
        self._experts = [_here(repository, expert) for expert in record.experts]
        parents, commits = parents_of(repository.git, self._commit), [head.commit for head in self._experts]
        self.named = not set(parents).isdisjoint(commits)  # whether an expert is a parent
        heads = list(dict.fromkeys([*parents, *commits]))  # a squash has one parent
        self._ancestors = ancestors(repository.git, heads, record)
        self._heads = heads
        self._record = record
        self._setting = Setting(self._experts, next(iter(self._ancestors), None), record.base, record.recipe)
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
        try:
            self._model(path, oid)
        except MissingObject:
            raise
        except ThetaError as error:
            unsaid = isinstance(error, MergeConflict) and path not in self._record.files
            problem = str(error).removeprefix(f"{spell(path)}: ")
            self.differs(path, "", f"{_UNSAID}, and the way of the others is none: {problem}" if unsaid else problem)

    def _model(self, path: str, oid: str) -> None:
        actual = self._trees.manifest(oid)
        assert actual
        known = [other for other, manifest in self._moved if _shape(manifest) == _shape(actual)]
        sides = self._trees.sides(self._experts, self._setting.ancestor, path, known)
        whole = self._record.whole.get(path)
        if isinstance(whole, Taken):
            self._taken(path, (oid, actual), whole.commit)
        elif whole:
            self._by_hand(path, actual, sides, whole.digest)
        elif not sides:
            self.differs(path, "", "none of the experts has it")
        elif lone := self._lone(path, actual, sides, known):
            self._whole(path, actual, lone)
        elif self._record.of(path).strategy == NONE:
            self.differs(path, "", _UNSAID)
        else:
            self._merged(path, actual, sides, known)

    def differs(self, path: str, parameter: str, problem: str) -> None:
        """Note what is wrong."""
        self.differences.append(Difference(path, parameter, problem))

    def _whole(self, path: str, actual: Manifest, side: Side) -> None:
        """Of what one expert alone changed, nothing is computed."""
        self._compare(path, actual, side.manifest, ())
        self.verified.append(Verified(path, len(actual.entries), 0))

    def _lone(self, path: str, actual: Manifest, sides: Sequence[Side], known: Sequence[str]) -> Side | None:
        """The one side that changed a file. Of several common ancestors git makes one, and a side that is another than
        the first may be as that is: then the file has to agree, else it was merged."""
        alone = sides[0] if len({side.oid for side in sides}) == 1 else None
        if len(self._ancestors) < 2:
            return alone
        for ancestor in self._ancestors:
            found = self._trees.sides(self._experts, ancestor, path, known)
            if {side.manifest.digest for side in found} == {actual.digest}:
                return found[0]
        return None

    def _taken(self, path: str, model: tuple[str, Manifest], commit: str) -> None:
        """Of what was taken as one commit has it, the bytes are looked at, and nothing is computed."""
        oid, actual = model
        if not self._is_of(commit):
            self.differs(path, "", f"it is recorded as taken from {commit}, which is no commit that was merged")
            return
        place = self._trees.find(commit, path, [oid])
        expected = self._trees.manifest(place.oid) if place else None
        if expected is None:
            self.differs(path, "", f"it is recorded as taken from {commit}, which has no such model")
            return
        self._compare(path, actual, expected, ())
        self._intact(expected, actual)
        self.verified.append(Verified(path, len(actual.entries), 0, taken=commit))

    def _is_of(self, commit: str) -> bool:
        """Whether a commit was merged, or is in the history of one that was."""
        return any(self._repository.git.contains(head, commit) for head in self._heads)

    def _by_hand(self, path: str, actual: Manifest, sides: Sequence[Side], digest: str) -> None:
        """Nothing repeats what a person did: that this is the result is compared, and what it was made of is read."""
        if actual.digest != digest:
            self.differs(path, "", f"it is {actual.digest}, and by hand {digest} was made")
        before = self._trees.before(self._record.base, self._experts, path)
        base = self._trees.manifest(before) if before else None
        self._intact(actual, *(side.manifest for side in sides), *([base] if base else []))
        self.verified.append(Verified(path, len(actual.entries), 0, by_hand=True))

    def _intact(self, *manifests: Manifest) -> None:
        """Read everything that versions of a model are made of. Raises ``ObjectError``."""
        self._desk.gather(manifests)
        for manifest in dict.fromkeys(manifests):
            smudge(manifest, self._repository.store, Forgetful())

    def _merged(self, path: str, actual: Manifest, sides: Sequence[Side], known: Sequence[str]) -> None:
        before = len(self.differences)
        ancestor = self._setting.ancestor if len(self._ancestors) < 2 else None  # else all sides have changed it
        setting = Setting(self._experts, ancestor, self._record.base_of(path), self._record.of(path))
        self._again(path, actual, of_sides(self._trees, path, setting, known))
        same = [side.head.name for side in sides if side.manifest.digest == actual.digest]
        if len(self.differences) > before and same:
            self.differences[before:] = [Difference(path, "", f"it is {same[0]}'s version, and not what is recorded")]

    def _again(self, path: str, actual: Manifest, question: Question) -> None:
        steps = question.steps
        computed = [step.name for step in steps if step.choice]
        tolerated: tuple[str, ...] = ()
        if all(step.take == 0 for step in steps):
            self._compare(path, actual, question.tips[0], ())
            self._intact(question.tips[0])
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
                self.differs(path, name, "it is not in the merge" if name in wanted else "no expert has it")
            elif found[name] != wanted[name] and name not in tolerated:
                self.differs(path, name, f"it is {_what(found[name])}, and the merge makes {_what(wanted[name])}")
        if before == len(self.differences) and actual.digest != expected.digest and not tolerated:
            self.differs(path, "", "its parameters agree, and the bytes between them do not")


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

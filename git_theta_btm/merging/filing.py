"""Filing: one model file of several commits becomes one, in the store, and as a file that can take its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

from ..api import Checkpoint
from ..catalogue import open_catalogue
from ..checkout.assembling import Version
from ..checkout.replacing import nameless
from ..errors import ManifestError, MergeConflict, MissingObject, ThetaError
from ..filters.identify import mode_of
from ..manifest import Blob, Manifest, spell
from ..remotes.fetching import fetch
from ..remotes.lfs import adopt, media
from ..remotes.transfer import Port
from ..repository import Repository, attributes
from .computing import Device
from .inputs import Models
from .metering import Meter
from .producing import Workshop, produce
from .recipe import Recipe
from .resolve import Rows, Step, plan

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """One file to be merged: its path, what each tip has of it, what the base has, and how it is merged."""

    path: str
    tips: tuple[Manifest, ...]
    base: Manifest | None
    recipe: Recipe
    statistics: tuple[Manifest, ...] = ()
    rows: dict[int, Rows] | None = None

    @cached_property
    def steps(self) -> list[Step]:
        """What becomes of each parameter. Raises ``MergeConflict`` naming the file and the parameters."""
        for tip in (*self.tips, *([self.base] if self.base else [])):
            if not tip.entries and tip.digest != self.tips[0].digest:
                raise MergeConflict(f"{spell(self.path)}: it has no parameters, and the versions differ")
        try:
            return plan(self.tips, self.base, self.recipe, self.rows)
        except MergeConflict as error:
            raise MergeConflict(f"{spell(self.path)}: {error}") from None


@dataclass(frozen=True, slots=True)
class Merged:
    """The manifest of a merged file and, unless it is one of the tips' as it is, the open file itself."""

    path: str
    manifest: Manifest
    file: IO[bytes] | None = None

    def version(self) -> Version | None:
        """The file, handed over: something that others are assembled from, closed by whoever uses it."""
        if self.file is None:
            return None
        fd = os.dup(self.file.fileno())
        self.file.close()  # a filter takes what git's caller has open for something inherited
        return Version(self.manifest, fd, os.fstat(fd), nameless=True)


def _spool(directory: str) -> IO[bytes]:
    """A file that is gone when it is closed, unless it is given a name before."""
    fd = nameless(directory)
    return TemporaryFile(dir=directory, buffering=0) if fd is None else os.fdopen(fd, "w+b", 0)


class Desk:
    """Where the files of one repository are merged; use as a context manager. Merged files are gone with it."""

    def __init__(self, repository: Repository, device: Device | None = None, progress: Progress | None = None) -> None:
        self._repository, self._device = repository, device or Device()
        self._progress = progress or Meter("merging")
        self._stack = ExitStack()

    def __enter__(self) -> Desk:
        self._catalogue = open_catalogue(self._repository.store.root)
        self._stack.callback(self._catalogue.close)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def merge_all(self, questions: Sequence[Question]) -> list[Merged]:
        """Merge files, after it is certain that each can be. Raises as ``merge`` does."""
        for question in questions:
            question.steps  # noqa: B018 - raises
        return [self.merge(question) for question in questions]

    def merge(self, question: Question) -> Merged:
        """Merge one file. Raises ``MergeConflict`` before anything is written, and ``ObjectError`` for an input that is
        missing or corrupt."""
        steps = question.steps
        if all(step.take == 0 for step in steps):
            return Merged(question.path, question.tips[0])
        mode = attributes(self._repository.git, [question.path], "theta-store")[question.path]["theta-store"]
        workshop = Workshop(
            self._repository.store,
            self._catalogue,
            mode_of(mode),
            self._device,
            self._progress,
        )
        directory = os.path.join(self._repository.store.root, "tmp")
        os.makedirs(directory, exist_ok=True)
        file = self._stack.enter_context(_spool(directory))
        try:
            self._gather(question)
            manifest = produce(self.models(question), steps, file.fileno(), workshop)
        except ManifestError:
            raise
        except ThetaError as error:
            raise type(error)(f"{spell(question.path)}: {error}") from None
        return Merged(question.path, manifest, file)

    def models(self, question: Question) -> Models:
        """The models of a question as they are read from the store."""
        store = self._repository.store
        base = Checkpoint(question.base, store) if question.base else None
        statistics = tuple(Checkpoint(item, store) for item in question.statistics)
        return Models(tuple(Checkpoint(tip, store) for tip in question.tips), base, statistics, question.rows)

    def opened(self, question: Question) -> Models:
        """The same with all objects here. Raises ``MissingObject``."""
        self._gather(question)
        return self.models(question)

    def _gather(self, question: Question) -> None:
        """Have all objects here, from a remote if they are not. Raises ``MissingObject``."""
        needed = (*question.tips, *([question.base] if question.base else []), *question.statistics)
        self.gather(needed)

    def gather(self, manifests: Iterable[Manifest]) -> None:
        """The same for any manifests."""
        repository = self._repository
        missing = self._missing(manifests := list(manifests))
        if missing:
            adopt(missing, media(repository.git, repository.common), repository.store)
            missing = self._missing(manifests)
        if missing:
            port = Port(repository.git, repository.store, repository.common, self._catalogue)
            problem = fetch(port, missing).problem
            if still := self._missing(manifests):
                why = f" ({problem})" if problem else ""
                others = f" and {len(still) - 1} more are" if still[1:] else " is"
                raise MissingObject(f"object {still[0].digest}{others} not here{why}")

    def _missing(self, manifests: Sequence[Manifest]) -> list[Blob]:
        return list(dict.fromkeys(blob for manifest in manifests for blob in self._repository.missing(manifest)))

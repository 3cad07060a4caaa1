"""The worktree's side of model files: real files in the place of stubs, and stubs in the place of real files.

Out of band: git's own way keeps the whole file in git's memory and writes it four to five times slower than ``cp``.
Never follows a symbolic link out of the worktree, never overwrites anything but the file it looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from ..catalogue import Catalogue, NoCatalogue, open_catalogue
from ..errors import ManifestError, ThetaError
from ..filters.session import stat_key
from ..filters.smudge import present, verify
from ..manifest import Blob, Manifest, loads
from ..parallel import WORKERS, map_threads
from ..remotes.lfs import adopt, media
from ..repository import ModelFile, Repository, read_stub
from ..source import write_all
from .assembling import Assembler, Version
from .editing import edited, shared
from .replacing import Expected, named, replace

Progress = Callable[[int, int], None]  # bytes done, bytes in all
Fetch = Callable[[Sequence[Blob]], None]  # brings objects into the store, as far as it can


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one model: ``size`` bytes of file, or ``problem`` says why it is still what it was."""

    path: str
    size: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Means:
    """What may help to restore files: earlier versions of them by path (each is closed and taken out when it has been
    used), a way to get objects, and who is told."""

    old: MutableMapping[str, Version]
    fetch: Fetch | None = None
    progress: Progress = lambda done, total: None


_NOTHING = Means({})
_WHATEVER_MODE = ("-c", "core.fileMode=false")  # a mode that the index does not have is for the user to stage


def materialise(repository: Repository, models: Iterable[ModelFile], means: Means = _NOTHING) -> list[Outcome]:
    """Replace stubs by the files they stand for, and tell git that nothing has changed.

    Where a process was killed between the two, the second is made up for. Raises ``ThetaError`` if the filters are not
    installed, and if git cannot write its index; the files are there then.
    """
    check_filters(repository)
    found = [(model, read_stub(repository.absolute(model.path))) for model in models]
    stubs = [(model.path, text) for model, text in found if text is not None]
    catalogue = open_catalogue(repository.store.root)
    try:
        outcomes = _Restoration(repository, catalogue, means, stubs).run()
    finally:
        catalogue.close()
    restored = {outcome.path for outcome in outcomes if not outcome.problem}
    refresh(repository, [model.path for model, text in found if model.path in restored and text == model.text])
    _make_up(repository, [model for model, text in found if text is None])
    return outcomes


def refresh(repository: Repository, paths: Sequence[str]) -> None:
    """Tell git that these files are what the index says; it asks the filter. Raises ``ThetaError``."""
    if paths:
        # A refresh would not do: where the size differs git takes a file for modified without looking into it.
        names = b"".join(os.fsencode(path) + b"\0" for path in paths)
        repository.git.run(*_WHATEVER_MODE, "update-index", "-z", "--stdin", stdin=names)


def _make_up(repository: Repository, models: Sequence[ModelFile]) -> None:
    """Refresh the files that git takes for modified, only because it has never seen them with their present size."""
    if not models:
        return
    modified = set(repository.git.fields(*_WHATEVER_MODE, "diff-files", "--name-only", "-z"))
    refresh(repository, [model.path for model in models if model.path in modified and unmodified(repository, model)])


def unmodified(repository: Repository, model: ModelFile) -> bool:
    """Whether the file in the worktree is the version in the index: git's filter is asked, and no flag is believed."""
    absolute = repository.absolute(model.path)
    if model.text is None or os.path.islink(absolute) or not os.path.isfile(absolute):
        return False
    found = repository.git.run("hash-object", "--", model.path, check=False)
    return found.stdout.decode().strip() == model.oid


class _Restoration:
    """Restores the files of many stubs, several at once."""

    def __init__(
        self,
        repository: Repository,
        catalogue: Catalogue | NoCatalogue,
        means: Means,
        stubs: Sequence[tuple[str, bytes]],
    ) -> None:
        self._repository, self._catalogue, self._means, self._stubs = repository, catalogue, means, stubs
        self._lock, self._done, self._total = Lock(), 0, 0
        self._assembler = Assembler(repository.store, catalogue, max(1, WORKERS // max(1, len(stubs))), self._wrote)

    def run(self) -> list[Outcome]:
        manifests = []
        for _, text in self._stubs:
            with suppress(ManifestError):  # the outcome will say so
                manifests.append(loads(text))
        self._total = sum(manifest.size for manifest in manifests)
        self._gather(manifests)
        return map_threads(self._outcome, self._stubs)

    def _gather(self, manifests: Iterable[Manifest]) -> None:
        wanted = dict.fromkeys(blob for manifest in manifests for blob in self._repository.missing(manifest))
        if wanted:
            adopt(list(wanted), media(self._repository.git, self._repository.common), self._repository.store)
        missing = [blob for blob in wanted if self._repository.store.size(blob.digest) is None]
        if missing and self._means.fetch:
            self._means.fetch(missing)

    def _wrote(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._means.progress(self._done, self._total)

    def _outcome(self, stub: tuple[str, bytes]) -> Outcome:
        path, text = stub
        absolute = self._repository.absolute(path)
        old = self._means.old.pop(path, None)
        try:
            manifest = loads(text)
            check_inside(self._repository, absolute)
            self._catalogue.remember(absolute, manifest, text)
            if old and not shared(old.manifest, manifest):
                old.close()  # its memory and its place on the disk serve the new file
                old = None
            state = self._put(absolute, manifest, old, lambda name: read_stub(name) == text)
        except (ThetaError, OSError) as error:
            return Outcome(path, problem=str(error))
        finally:
            if old:
                old.close()
        self._catalogue.recognise(absolute, stat_key(state), manifest.digest)
        return Outcome(path, manifest.size)

    def _put(self, absolute: str, manifest: Manifest, old: Version | None, expected: Expected) -> os.stat_result:
        """The file in the place of its stub: the old one if it is that, or made of it, or else anew."""
        if old and old.nameless and old.manifest.digest == manifest.digest:
            state = named(old.fd, absolute, expected)
            if state:
                self._wrote(manifest.size)
                return state
        edit = edited(self._assembler, manifest, old, absolute, expected) if old else None
        return edit or replace(absolute, lambda out: self._assembler.write(manifest, out, old), expected)


def dematerialise(repository: Repository, models: Iterable[ModelFile]) -> list[Outcome]:
    """Replace unmodified files by their stubs, and tell git that nothing has changed; stubs stay as they are.

    A file is left alone, and its outcome says so, unless all of its objects are in the store with the right bytes.
    Raises ``ThetaError`` if the filters are not installed, and if git cannot write its index.
    """
    check_filters(repository)
    files = [model for model in models if os.path.isfile(repository.absolute(model.path))]
    files = [model for model in files if read_stub(repository.absolute(model.path)) is None]
    catalogue = open_catalogue(repository.store.root)
    try:
        outcomes = [_leave(repository, catalogue, model) for model in files]
    finally:
        catalogue.close()
    refresh(repository, [outcome.path for outcome in outcomes if not outcome.problem])
    return outcomes


def _leave(repository: Repository, catalogue: Catalogue | NoCatalogue, model: ModelFile) -> Outcome:
    """Leave a stub in a file's place."""
    absolute = repository.absolute(model.path)
    try:
        text, manifest, state = model.text, model.manifest, os.lstat(absolute)
        if text is None or manifest is None:
            raise ThetaError("git holds the file itself: 'git add --renormalize' it first")
        if not unmodified(repository, model):
            raise ThetaError("it is modified: add it, or restore it, first")
        check_inside(repository, absolute)
        verify(manifest, present(manifest, repository.store), catalogue)
        replace(absolute, lambda out: _write(out, text), lambda name: _same(os.lstat(name), state))
    except (ThetaError, OSError) as error:
        return Outcome(model.path, problem=str(error))
    return Outcome(model.path, state.st_size)


def _write(out: int, text: bytes) -> None:
    write_all(out, text)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether it is one file that nobody wrote to; a change of its name alone changes the change time."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
    )


def check_filters(repository: Repository) -> None:
    """Raise ``ThetaError`` if git has no filter to ask: it would take the next file for what is to be committed."""
    if not repository.git.configured("filter.theta.clean"):
        raise ThetaError("the filters are not installed: run 'git theta install' first")


def check_inside(repository: Repository, absolute: str) -> None:
    """Raise ``ThetaError`` if a directory on the way to the file is a symbolic link."""
    directory = os.path.dirname(absolute)
    root = repository.worktree()
    inside = os.path.join(os.path.realpath(root), os.path.relpath(directory, root))
    if os.path.realpath(directory) != os.path.normpath(inside):
        raise ThetaError("it lies beyond a symbolic link")

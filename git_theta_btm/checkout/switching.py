"""Switch: git does the switch with stubs for models, then the models are written out of band.

Whether to switch at all, and everything but the bytes of models, is left to git: its refusals, hooks and messages are
those of ``git switch`` itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from ..catalogue import Catalogue, NoCatalogue, open_catalogue
from ..errors import ManifestError
from ..filters.session import stat_key
from ..git import BlobReader
from ..gitdir import is_set
from ..manifest import loads
from ..repository import ModelFile, Repository, read_manifest, read_stub
from .assembling import Version
from .editing import named_again, reopened, worthwhile
from .worktree import Means, Outcome, materialise

_HELD = 256  # files kept open across the switch: a process may open about a thousand
STUBS = ("-c", "filter.theta.smudge=cat")  # in place of our filter: it starts in 2 ms, not in 60
SKIP = "GIT_THETA_SKIP_SMUDGE"
# With these git merges models, or enters submodules, with its filters: it does all by itself then. Any abbreviation.
_BY_ITSELF = ("--m", "--co", "--r")


@dataclass(frozen=True, slots=True)
class Switched:
    """git's exit code, and what became of the models that it changed."""

    code: int
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class _Before:
    """The state of each model file by path, and the paths of stubs."""

    keys: dict[str, str]
    stubs: set[str]


def switch(repository: Repository, arguments: Sequence[str], means: Means) -> Switched:
    """Run ``git switch`` with these arguments, and write the models that it left as stubs.

    In a clone that skips smudging, files stay files and stubs stay stubs. Raises ``ThetaError`` if git cannot be run,
    or cannot write its index after all files are there: ``git theta pull`` makes up for it.
    """
    if _by_itself(repository, arguments):
        return Switched(repository.here.attached("switch", *arguments), [])
    models = repository.models()
    before = _look(repository, models)
    with _held(repository, models, arguments) as old:
        git = repository.here.with_environment(**{SKIP: "1"})
        code = git.attached(*STUBS, "switch", *arguments)
        for path, version in list(old.items()):
            if again := reopened(version):
                old[path] = again
            else:
                old.pop(path).close()
        written = _written(repository, before)
        if skips_smudge(repository):
            written = [model for model in written if model.path in before.keys and model.path not in before.stubs]
        return Switched(code, materialise(repository, written, replace(means, old=old)))


def skips_smudge(repository: Repository) -> bool:
    """Whether checkouts leave stubs here: by the environment, or since ``install`` or ``clone`` was told so."""
    return is_set(SKIP) or "--skip" in repository.git.configured("filter.theta.smudge").split()


def _by_itself(repository: Repository, arguments: Sequence[str]) -> bool:
    short = (word for word in arguments if word[:1] == "-" and word[:2] != "--")
    if any("m" in word for word in short) or any(word.startswith(_BY_ITSELF) for word in arguments):
        return True
    configured = repository.git.configured
    return configured("submodule.recurse", kind="bool") == "true" or not configured("filter.theta.clean")


def _look(repository: Repository, models: Iterable[ModelFile]) -> _Before:
    before = _Before({}, set())
    for model in models:
        absolute = repository.absolute(model.path)
        if os.path.lexists(absolute):
            before.keys[model.path] = stat_key(os.lstat(absolute))
            if read_stub(absolute) is not None:
                before.stubs.add(model.path)
    return before


def _written(repository: Repository, before: _Before) -> list[ModelFile]:
    """The models that are stubs now, and that git has written since."""
    written = []
    for model in repository.models():
        absolute = repository.absolute(model.path)
        if model.text is not None and read_stub(absolute) == model.text:
            written += [model] if stat_key(os.lstat(absolute)) != before.keys.get(model.path) else []
    return written


# -- what stood there before -------------------------------------------------------------------------------------------


@contextmanager
def _held(
    repository: Repository, models: Sequence[ModelFile], arguments: Sequence[str]
) -> Iterator[dict[str, Version]]:
    """The files that the switch is about to change, open, so that their bytes outlive their names.

    Only those that are certain to be a version still, by their state. To guess wrongly costs time and nothing else.
    """
    changed = _changed(repository, arguments) if models else {}
    old: dict[str, Version] = {}
    catalogue = open_catalogue(repository.store.root)
    try:
        holder = _Holder(repository, catalogue)
        held = [model.path for model in models if model.path in changed][:_HELD]
        with repository.git.blobs() as reader:
            for path in held:
                if version := holder.hold(path, changed[path], reader):
                    old[path] = version
        yield old
    finally:
        for path, version in old.items():
            version.close()
            holder.recognise(path, version)
        catalogue.close()


class _Holder:
    """Opens the files of a worktree, or names them a second time where they may become the next version."""

    def __init__(self, repository: Repository, catalogue: Catalogue | NoCatalogue) -> None:
        self._repository, self._catalogue = repository, catalogue
        self._directory = os.path.join(repository.store.root, "tmp")

    def hold(self, path: str, oid: str, reader: BlobReader) -> Version | None:
        """The file, if it is a version that is known; ``oid`` is what git is about to write there."""
        absolute = self._repository.absolute(path)
        try:
            fd = os.open(absolute, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        state = os.fstat(fd)
        text = self._catalogue.recall(absolute, stat_key(state))
        with suppress(ManifestError):
            if text:
                return self._named(Version(loads(text), fd, state), path, oid, reader)
        os.close(fd)
        return None

    def _named(self, version: Version, path: str, oid: str, reader: BlobReader) -> Version:
        """The version under a second name, if it may become the next one."""
        with suppress(ManifestError):
            text = read_manifest(reader, oid)
            if text and worthwhile(version.manifest, loads(text)):
                version = named_again(version, self._repository.absolute(path), self._directory)
                self.recognise(path, version)
        return version

    def recognise(self, path: str, version: Version) -> None:
        """Know the file again although it has got a second name, or lost one, which changes its time."""
        with suppress(OSError):
            absolute = self._repository.absolute(path)
            now = os.lstat(absolute)
            if version.spare and version.is_like(now) and os.path.samestat(now, version.state):
                self._catalogue.recognise(absolute, stat_key(now), version.manifest.digest)


def _changed(repository: Repository, arguments: Sequence[str]) -> dict[str, str]:
    """The paths in which the index differs from the commit that is most likely meant, and the blobs there."""
    for word in reversed([word for word in arguments if word == "-" or not word.startswith("-")]):
        for name in ("@{-1}" if word == "-" else word, f"refs/remotes/origin/{word}"):
            if oid := repository.here.tree(name):
                fields = repository.git.fields("diff-index", "--cached", "--no-renames", "-z", oid)
                return {path: row.split()[2] for row, path in zip(fields[::2], fields[1::2], strict=True)}
    return {}

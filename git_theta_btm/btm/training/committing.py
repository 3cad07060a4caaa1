"""Committing: files become a commit on a branch, whoever has that branch checked out.

Nothing passes through a worktree or through anybody's index: the files are stored as the filter would, and the branch
moves at the end. A commit goes on top of whatever the branch is by then, and replaces only the folders that it names.
Where the branch is checked out it moves by ``git merge --ff-only``, which keeps what is not committed there or
refuses; then the commit waits in ``refs/btm/runs/``, the next one goes on top of it, and nothing is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

from ...catalogue import open_catalogue
from ...checkout.switching import SKIP, STUBS, skips_smudge
from ...checkout.worktree import Means, materialise
from ...errors import ThetaError
from ...git import Git
from ...remotes import hooks
from ...repository import Repository
from ...saving import Draft, begin
from ...source import FileSource
from .. import places

_TRIES = 100  # times that a branch may move while one commit is made
_TENSORS = (".safetensors", ".pt", ".pth", ".bin")
NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")
# In our own worktrees a manifest is a text, and no filter is asked: git would have every file of the commit cleaned
# again, twice, since all were written in the second in which the index was, and each takes 0.1 s to start.
PLAIN = ("-c", "filter.theta.clean=", "-c", "filter.theta.smudge=", "-c", "filter.theta.required=false")


@dataclass(frozen=True, slots=True)
class Content:
    """What a commit changes: ``files`` by their paths in the tree; ``blobs`` that git has already; what stands in
    ``folders`` goes first. With ``track``, files of tensors are tracked from here on."""

    files: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    blobs: Mapping[str, str] = field(default_factory=dict)
    track: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Where the commits of a training go: a ref by its full name."""

    repository: Repository
    ref: str

    @property
    def git(self) -> Git:
        return self.repository.git

    @property
    def waiting(self) -> str:
        """The ref of commits that the branch could not move to yet."""
        return f"refs/btm/runs/{self.ref.removeprefix('refs/')}"

    def tip(self) -> str:
        """The last commit: that of the branch, or one on top of it that waits. Empty if there is no such branch."""
        tip, waiting = commit_of(self.git, self.ref), commit_of(self.git, self.waiting)
        return waiting if waiting and self._follows(tip, waiting) else tip

    def _follows(self, one: str, other: str) -> bool:
        return bool(one) and self.git.contains(other, one)

    def add(self, content: Content, message: str, parents: Iterable[str] = ()) -> str:
        """Commit, on top of the branch (or of HEAD if it is new; with ``parents`` of the first of these), and return
        the commit. Raises ``ThetaError``, and ``OSError`` if the disk is full."""
        given = list(parents)
        with closing(open_catalogue(self.repository.store.root)) as catalogue, TemporaryDirectory() as directory:
            with suppress(ThetaError, OSError):  # a push works without the hook, by 'git theta push'
                hooks.install(self.git)
            known: dict[str, str] = {}
            for _ in range(_TRIES):
                tip = self.tip()
                draft = begin(self.repository, next(iter(given), tip or commit_of(self.git, "HEAD")), directory)
                draft.remove(*content.folders)
                for path, oid in content.blobs.items():
                    draft.put(path, oid)
                for path, file in content.files.items():
                    if content.track and path.endswith(_TENSORS) and not draft.tracked(path):
                        draft.track(path)
                    known[path] = known.get(path) or _store(draft, path, file, catalogue)
                    draft.put(path, known[path])
                commit = draft.commit(message.encode(), *given[1:])
                if self.advance(commit):
                    return commit
        raise ThetaError(f"{self.ref} moved {_TRIES} times while it was committed to")

    def advance(self, commit: str) -> bool:
        """Move the branch to a commit, or have it wait if what is not committed is in its way; False if it does not
        follow what the branch is by now."""
        before = commit_of(self.git, self.ref)
        if before and not self._follows(before, commit):
            return False
        place = holder(self.git, self.ref)
        if _forward(self.repository, place, commit) if place else self._move(self.ref, commit, before):
            self.git.run("update-ref", "-d", self.waiting)
            return True
        return bool(place) and self._move(self.waiting, commit, commit_of(self.git, self.waiting))

    def _move(self, ref: str, commit: str, before: str) -> bool:
        words = ("update-ref", "-m", "btm: checkpoint", ref, commit, before or "0" * 40)
        return self.git.run(*words, check=False).returncode == 0

    def settle(self) -> str:
        """Move the branch to what waits, if that is possible by now; otherwise what to type."""
        if commit_of(self.git, self.waiting) and self.tip() == commit_of(self.git, self.waiting):
            self.advance(self.tip())
        if not commit_of(self.git, self.waiting):
            return ""
        return f"what is not committed in {holder(self.git, self.ref)} is in the way: 'git merge {self.waiting}' there"


def commit_of(git: Git, name: str) -> str:
    """The commit of this name; empty if there is none."""
    return git.oid(f"{name}^{{commit}}")


def holder(git: Git, ref: str) -> str:
    """The worktree that has a branch checked out; empty if none has."""
    place = ""
    for line in git.text("worktree", "list", "--porcelain").split("\n"):
        place = line.removeprefix("worktree ") if line.startswith("worktree ") else place
        if line == f"branch {ref}" and os.path.isdir(place):
            return place
    return ""


def _store(draft: Draft, path: str, file: str, catalogue: object) -> str:
    """The blob of a file: of its manifest, if it is tracked."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        source = FileSource(fd)
        if source.size and draft.tracked(path):
            return draft.store(path, source, catalogue)  # type: ignore[arg-type]
        return draft.write(source.read(0, source.size))
    finally:
        os.close(fd)


def _forward(repository: Repository, place: str, commit: str) -> bool:
    """Move a branch where it is checked out, and write the models that this changes; False if git refuses."""
    there = Repository(place)
    there.git.environment = Git.elsewhere(place).environment
    before = {model.path: model.oid for model in there.models()}
    git = there.git.with_environment(**{SKIP: "1"})
    private = os.path.realpath(places.private(repository.common, "worktrees"))
    if os.path.realpath(place).startswith(private + os.sep):  # ours: nothing in it is anybody's work
        return git.run(*NO_HOOKS, *PLAIN, "reset", "--hard", "--quiet", commit, check=False).returncode == 0
    words = ("merge", "--ff-only", "--no-autostash", "--quiet", commit)
    if git.run(*NO_HOOKS, *STUBS, *words, check=False).returncode:
        return False
    if skips_smudge(there):
        return True
    materialise(there, [model for model in there.models() if before.get(model.path) != model.oid], Means({}))
    return True

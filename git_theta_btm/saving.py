"""Saving from Python: a state dict becomes a commit on a branch; no file is written, no worktree and no index changed.

Safe to call from many threads and processes at once. Killed at any point, it leaves the branch as it was, or with the
whole commit; objects that nobody came to need go with the next prune.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from .care.versions import located
from .catalogue import Catalogue, NoCatalogue, open_catalogue
from .errors import FormatError, ManifestError, ThetaError
from .filters.clean import clean
from .filters.identify import Surroundings
from .git import Git
from .manifest import Manifest, loads
from .remotes import hooks
from .repository import Repository, attributes, read_manifest
from .setup.attributes import FILE, add, literal
from .source import Source
from .states import safetensors

_TRIES = 100  # times that a branch may move between two looks at it; each takes some 20 ms
_TRAILER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_LINE = re.compile(r"[^\n\0]*")
# An index that nobody else sees: it is not split, and no hook is told of it.
_PRIVATE = ("-c", "core.splitIndex=false", "-c", f"core.hooksPath={os.devnull}")


def save(  # noqa: PLR0913 - one for each option
    state: Mapping[str, object],
    path: str,
    message: str,
    *,
    branch: str | None = None,
    repository: str = ".",
    metadata: Mapping[str, str] | None = None,
    trailers: Mapping[str, object] | None = None,
    track: bool = False,
) -> str:
    """Commit tensors by name as the safetensors file ``path`` of a branch, and return the name of the commit.

    The branch is that of HEAD unless one is named; a new one begins at HEAD. ``path`` is relative to ``repository``.
    With ``track`` the commit adds the line to ``.gitattributes`` that the file may need. If the branch moves meanwhile,
    the commit goes on top. Raises ``ThetaError`` for a branch that is checked out, a path that is not tracked, and a
    tensor that safetensors does not store, ``OSError`` if the disk is full.
    """
    if "\0" in path + message + (branch or "") or os.path.basename(path).startswith(".git"):
        raise ThetaError(f"no model can be {path!r} in {branch!r}: names have no NUL, and .git* is git's own")
    found = Repository(repository)
    target = _Target(found, _reference(found.git, branch), located(found, path), track)
    text = _message(found.git, message, trailers or {})
    source = safetensors(state, metadata)
    first = not os.path.isdir(found.store.root)
    # Open until the branch has the commit: nothing is pruned as long as it is.
    with (
        closing(open_catalogue(found.store.root)) as catalogue,
        TemporaryDirectory(prefix="git-theta-") as directory,
    ):
        if first:
            _settle(found.git)
        return _commit(target, directory, text, (source, catalogue))


def _commit(target: _Target, directory: str, text: bytes, content: tuple[Source, Catalogue | NoCatalogue]) -> str:
    blob = ""
    for _ in range(_TRIES):
        draft = target.draft(directory)
        blob = blob or draft.store(*content)
        commit = draft.commit(blob, text)
        problem = draft.advance(commit)
        if not problem:
            return commit
        if target.tip() == draft.tip:
            raise ThetaError(problem)
    raise ThetaError(f"{target.ref} moved {_TRIES} times while it was saved to: {problem}")


def _settle(git: Git) -> None:
    """Have the hook in a repository that models come to for the first time, as the filter does."""
    try:
        if hooks.install(git) != "foreign":
            return
        problem = f"is not ours to change: {hooks.remedy(git)}"
    except (ThetaError, OSError) as error:
        problem = f"cannot be put in place, push by 'git theta push': {error}"
    warnings.warn(f"the {hooks.NAME} hook {problem}", stacklevel=3)


def _reference(git: Git, branch: str | None) -> str:
    """The ref to move. Raises ``ThetaError`` if it is checked out somewhere: what stands there would look modified."""
    name = "HEAD" if branch is None else f"refs/heads/{branch}"
    if branch is not None and (branch[:1] == "-" or git.run("check-ref-format", name, check=False).returncode):
        raise ThetaError(f"{branch!r} is no name for a branch")
    followed = git.run("symbolic-ref", "--quiet", name, check=False).stdout
    if branch is None and not followed:
        raise ThetaError("HEAD is on no branch: name the one to save to")
    ref = os.fsdecode(followed).removesuffix("\n") or name
    worktree = ""
    for line in git.text("worktree", "list", "--porcelain").split("\n"):
        worktree = line.removeprefix("worktree ") if line.startswith("worktree ") else worktree
        if line == f"branch {ref}":
            raise ThetaError(
                f"branch {ref.removeprefix('refs/heads/')} is checked out in {worktree}: save to another branch, and "
                "merge it there, or 'git switch --detach' there first"
            )
    return ref


def _message(git: Git, message: str, trailers: Mapping[str, object]) -> bytes:
    if not message.strip():
        raise ThetaError("a commit needs a message")
    words = []
    for name, value in trailers.items():
        if not _TRAILER.fullmatch(name) or not _LINE.fullmatch(str(value)):
            raise ThetaError(f"not a trailer: {name!r}, which takes letters, digits and hyphens, and one line of text")
        words.append(f"--trailer={name}: {value}")
    text = (message.strip("\n") + "\n").encode(errors="backslashreplace")
    if not words:
        return text
    options = ("--no-divider", "--where=end", "--if-exists=add", "--if-missing=add")
    return git.run("interpret-trailers", *options, *words, stdin=text).stdout


@dataclass(frozen=True, slots=True)
class _Target:
    """Where to save: ``path`` from the root of the tree."""

    repository: Repository
    ref: str
    path: str
    track: bool

    def tip(self) -> str:
        """The commit at the branch's tip; empty if there is no such branch."""
        return self._commit_of(self.ref)

    def _commit_of(self, name: str) -> str:
        found = self.repository.git.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
        return found.stdout.decode().strip()

    def draft(self, directory: str) -> _Draft:
        """A commit to be, on top of what the branch is now. Raises ``ThetaError`` if the path is not tracked there."""
        tip = self.tip()
        parent = tip or self._commit_of("HEAD")
        git = self.repository.git.with_environment(GIT_INDEX_FILE=os.path.join(directory, "index"))
        git.run(*_PRIVATE, "read-tree", *([parent] if parent else ["--empty"]))
        draft = _Draft(self, git, tip, parent)
        if not draft.tracked() and self.track:
            draft.track()
        if not draft.tracked():
            where = self.ref.removeprefix("refs/heads/")
            more = "another line overrules it" if self.track else "track=True adds a line to .gitattributes"
            raise ThetaError(f"{self.path} does not have filter=theta in branch {where}: {more}")
        return draft


@dataclass(frozen=True, slots=True)
class _Draft:
    """A commit to be, in an index of its own. ``tip`` is what the branch was, ``parent`` what the commit is based on;
    each is empty if there is none."""

    target: _Target
    git: Git
    tip: str
    parent: str

    def _attribute(self, name: str) -> str:
        return attributes(self.git, [self.target.path], name, cached=True)[self.target.path][name]

    def tracked(self) -> bool:
        """Whether the path has the filter in this tree."""
        return self._attribute("filter") == "theta"

    def track(self) -> None:
        """Add the line for the path to the attributes at the root of the tree."""
        content = self.git.blob(f"{self.parent}:{FILE}") if self.parent else b""
        self._put(FILE, self._write(add(content, ["/" + literal(self.target.path)])))

    def store(self, source: Source, catalogue: Catalogue | NoCatalogue) -> str:
        """Store what is new, and return git's name of the manifest. Raises ``OSError`` if the store is full."""
        repository = self.target.repository
        surroundings = Surroundings(lambda _: self._before(), self._before, self._mode)
        try:
            return self._write(clean(source, repository.store, catalogue, surroundings).dumps())
        except FormatError:
            raise ThetaError("the tensors changed while they were saved: save copies of them") from None

    def _before(self) -> Manifest | None:
        """The version that the commit is based on."""
        if not self.parent:
            return None
        name = f"{self.parent}:{self.target.path}"
        oid = self.git.run("rev-parse", "--verify", "--quiet", name, check=False).stdout.decode().strip()
        with suppress(ManifestError), self.git.blobs() as blobs:
            text = read_manifest(blobs, oid) if oid else None
            return loads(text) if text is not None else None
        return None

    def _mode(self) -> str:
        value = self._attribute("theta-store")
        return value if value in ("raw", "small") else "fast"

    def _write(self, data: bytes) -> str:
        return self.git.run("hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()

    def _put(self, path: str, oid: str) -> None:
        self.git.run(*_PRIVATE, "update-index", "--add", "--cacheinfo", f"100644,{oid},{path}")

    def commit(self, blob: str, text: bytes) -> str:
        """Write the commit. Raises ``ThetaError`` if git does not know who the author is."""
        self._put(self.target.path, blob)
        tree = self.git.text(*_PRIVATE, "write-tree")
        parents = ["-p", self.parent] if self.parent else []
        options = ("-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, *parents)
        return self.git.run(*options, stdin=text).stdout.decode().strip()

    def advance(self, commit: str) -> str:
        """Move the branch, unless it is no longer what it was; what went wrong."""
        options = ("update-ref", "-m", f"theta save: {self.target.path}", self.target.ref, commit, self.tip)
        done = self.git.run(*options, check=False)
        words = " ".join(done.stderr.decode(errors="replace").split())
        return (words or "git update-ref failed") if done.returncode else ""

"""Saving from Python: a state dict becomes a commit on a branch; no file is written, no worktree and no index changed.

Safe to call from many threads and processes at once. Killed at any point, it leaves the branch as it was, or with the
whole commit; objects that nobody came to need go with the next prune.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from glob import escape, glob
from tempfile import TemporaryDirectory

from .care.versions import located
from .catalogue import Catalogue, NoCatalogue, open_catalogue
from .errors import FormatError, ManifestError, ThetaError
from .filters.clean import clean
from .filters.identify import Surroundings, mode_of
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
    if "\0" in path + (branch or "") or os.path.basename(path).startswith(".git"):
        raise ThetaError(f"no model can be {path!r} in {branch!r}: names have no NUL, and .git* is git's own")
    found = Repository(repository)
    target = _Target(found, _reference(found, branch), located(found, path), track)
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
        tip = target.tip()
        draft = target.draft(directory, tip)
        blob = blob or draft.store(target.path, *content)
        draft.put(target.path, blob)
        commit = draft.commit(text)
        problem = target.advance(commit, tip)
        if not problem:
            return commit
        if target.tip() == tip:
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


def _reference(repository: Repository, branch: str | None) -> str:
    """The ref to move. Raises ``ThetaError`` if it is checked out somewhere, where files would look modified, or is
    being rebased, which would not come to its end."""
    git = repository.git
    name = "HEAD" if branch is None else f"refs/heads/{branch}"
    if branch is not None and not git.may_name_branch(branch):
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
    if ref in _rebased(repository.common):
        raise ThetaError(f"branch {ref.removeprefix('refs/heads/')} is being rebased: 'git rebase --continue' first")
    return ref


def _rebased(common: str) -> Iterator[str]:
    """The branches that a rebase in some worktree will move, which has HEAD on none meanwhile."""
    for state in ("rebase-merge", "rebase-apply"):
        for place in (common, *glob(os.path.join(escape(common), "worktrees", "*"))):
            with suppress(OSError), open(os.path.join(place, state, "head-name"), errors="surrogateescape") as file:
                yield file.read().removesuffix("\n")


def _message(git: Git, message: str, trailers: Mapping[str, object]) -> bytes:
    if not message.strip():
        raise ThetaError("a commit needs a message")
    if "\0" in message:
        raise ThetaError("a commit's message has no NUL")
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
        return self.repository.git.oid(f"{name}^{{commit}}")

    def draft(self, directory: str, tip: str) -> Draft:
        """A commit to be, on top of ``tip``, or of HEAD if there is none. Raises ``ThetaError`` if the path is not
        tracked there."""
        draft = begin(self.repository, tip or self._commit_of("HEAD"), directory)
        if not draft.tracked(self.path) and self.track:
            draft.track(self.path)
        if not draft.tracked(self.path):
            where = self.ref.removeprefix("refs/heads/")
            more = "another line overrules it" if self.track else "track=True adds a line to .gitattributes"
            raise ThetaError(f"{self.path} does not have filter=theta in branch {where}: {more}")
        return draft

    def advance(self, commit: str, tip: str) -> str:
        """Move the branch, unless it is no longer at ``tip``; what went wrong."""
        options = ("update-ref", "-m", f"theta save: {self.path}", self.ref, commit, tip)
        done = self.repository.git.run(*options, check=False)
        words = " ".join(done.stderr.decode(errors="replace").split())
        return (words or "git update-ref failed") if done.returncode else ""


# -- a commit to be ----------------------------------------------------------------------------------------------------


def begin(repository: Repository, parent: str, directory: str) -> Draft:
    """A draft of a commit on top of ``parent`` (empty: it will have none), whose index stands in ``directory``."""
    git = repository.git.with_environment(GIT_INDEX_FILE=os.path.join(directory, "index"))
    git.run(*_PRIVATE, "read-tree", *([parent] if parent else ["--empty"]))
    return Draft(repository, git, parent)


@dataclass(frozen=True, slots=True)
class Draft:
    """A commit to be, in an index of its own, by paths from the root of the tree. ``parent`` is what it is based on;
    it is empty if there is none."""

    repository: Repository
    git: Git
    parent: str

    def tracked(self, path: str) -> bool:
        """Whether the path has the filter in this tree."""
        return self._attribute(path, "filter") == "theta"

    def _attribute(self, path: str, name: str) -> str:
        return attributes(self.git, [path], name, cached=True)[path][name]

    def track(self, path: str) -> None:
        """Add the line for the path to the attributes at the root of the tree."""
        content = self.git.blob(f"{self.parent}:{FILE}") if self.parent else b""
        self.put(FILE, self.write(add(content, ["/" + literal(path)])))

    def store(self, path: str, source: Source, catalogue: Catalogue | NoCatalogue) -> str:
        """Store what is new, and return git's name of the manifest. Raises ``OSError`` if the store is full."""
        surroundings = Surroundings(lambda _: self._before(path), lambda: self._before(path), lambda: self._mode(path))
        try:
            return self.write(clean(source, self.repository.store, catalogue, surroundings).dumps())
        except FormatError:
            raise ThetaError("the tensors changed while they were saved: save copies of them") from None

    def _before(self, path: str) -> Manifest | None:
        """The version that the commit is based on."""
        if not self.parent:
            return None
        oid = self.git.oid(f"{self.parent}:{path}")
        with suppress(ManifestError), self.git.blobs() as blobs:
            text = read_manifest(blobs, oid) if oid else None
            return loads(text) if text is not None else None
        return None

    def _mode(self, path: str) -> str:
        return mode_of(self._attribute(path, "theta-store"))

    def write(self, data: bytes) -> str:
        """Git's name of a blob, which is written."""
        return self.git.run("hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()

    def put(self, path: str, oid: str) -> None:
        """Have a blob at a path; a file that is executable stays so."""
        before = self.git.text("ls-files", "-s", "-z", "--full-name", "--", f":(top,literal){path}")
        mode = "100755" if before.startswith("100755 ") else "100644"
        self.git.run(*_PRIVATE, "update-index", "--add", "--cacheinfo", f"{mode},{oid},{path}")

    def remove(self, *paths: str) -> None:
        """Leave out files, and all that is in folders; those that are not there are not missed."""
        wanted = [f":(top,literal){path}" for path in paths]
        found = self.git.fields("ls-files", "-z", "--full-name", "--", *wanted) if wanted else []
        rows = "".join(f"0 {'0' * 40}\t{path}\0" for path in found)
        self.git.run(*_PRIVATE, "update-index", "-z", "--index-info", stdin=os.fsencode(rows))

    def commit(self, text: bytes, *more: str) -> str:
        """Write the commit, with ``more`` parents. Raises ``ThetaError`` if git does not know who the author is."""
        tree = self.git.text(*_PRIVATE, "write-tree")
        parents = [word for parent in (self.parent, *more) if parent for word in ("-p", parent)]
        options = ("-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, *parents)
        return self.git.run(*options, stdin=text).stdout.decode().strip()

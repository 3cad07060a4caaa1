"""A repository as the commands see it: its worktree, its store, and the model files in its index and commits."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from tempfile import TemporaryDirectory

from .errors import ThetaError
from .git import BlobReader, Git
from .gitdir import common_directory
from .manifest import MAGIC, MAX_TEXT, Blob, Manifest, loads
from .store import DiskStore

_MODELS = ":(top,attr:filter=theta)"
# git reads these relative to the directory it runs in, which is not always the user's.
_RELATIVE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file with the filter, by its path from the root of the worktree; ``text`` is None if git holds no manifest
    of it but the file itself."""

    path: str
    oid: str
    text: bytes | None

    @property
    def manifest(self) -> Manifest | None:
        """The parsed manifest. Raises ``ManifestError`` if it is broken."""
        return None if self.text is None else loads(self.text)


class Repository:
    """The repository around a directory. Raises ``ThetaError`` where there is none."""

    def __init__(self, directory: str = ".") -> None:
        absolute = {name: os.path.abspath(os.environ[name]) for name in _RELATIVE if os.environ.get(name)}
        self.here = Git(directory, absolute)  # paths that the user gives are relative to it
        answer = self.here.run("rev-parse", "--is-inside-work-tree", "--show-toplevel", check=False)
        inside, _, root = os.fsdecode(answer.stdout).partition("\n")
        if inside == "":
            self.here.run("rev-parse", "--git-dir")  # raises with git's own words
        self.root = root.removesuffix("\n") or None  # outside of it too, if GIT_WORK_TREE or core.worktree names it
        self.git = Git(self.root or directory, absolute)
        if inside != "true" and self.root:
            self.here = self.git  # from outside git takes paths as if it were called at the root
        self.common = common_directory(directory)
        self.store = DiskStore(os.path.join(self.common, "theta"), cache(self.git.waits_for_disk))

    def worktree(self) -> str:
        """The root of the worktree. Raises ``ThetaError`` in a bare repository."""
        if self.root is None:
            raise ThetaError("there is no worktree here: this is a bare repository, or the inside of .git")
        return self.root

    def absolute(self, path: str) -> str:
        """Where a file of the index stands in the worktree."""
        return os.path.join(self.worktree(), path)

    def relative(self, path: str) -> str:
        """A file of the index as seen from the user's directory."""
        if self.root is None:
            return path
        return os.path.relpath(self.absolute(path), os.path.realpath(self.here.directory))

    # -- model files -------------------------------------------------------------------------------------------------

    def models(self, *paths: str) -> list[ModelFile]:
        """The model files of the index below ``paths`` (all, if there are none); unmerged ones are left out.

        Raises ``ThetaError`` if a path matches none.
        """
        if self.root is None:
            return []
        if not paths:
            return self._read(_entries(self.here.fields("ls-files", "-s", "-z", "--full-name", "--", _MODELS)))
        rows = self.here.fields("ls-files", "-s", "-z", "--full-name", "--error-unmatch", "--", *paths)
        entries = _entries(rows)
        # Not by git's own attr pathspec: with a path it misses patterns that have a slash (git 2.39).
        filters = attributes(self.git, [path for _, path in entries], "filter")
        entries = [(oid, path) for oid, path in entries if filters[path]["filter"] == "theta"]
        if not entries:
            shown = "', '".join(paths)[:200]
            raise ThetaError(f"pathspec '{shown}' did not match any model file: 'git theta ls-files' names them")
        return self._read(entries)

    def models_of(self, revision: str, *paths: str) -> list[ModelFile]:
        """The model files of a commit or tree, by the attributes that it has itself.

        Raises ``ThetaError`` if there is no such revision or path.
        """
        tree = self.here.tree(revision)
        if not tree:
            raise ThetaError(f"there is no revision and no file {revision!r}")
        with TemporaryDirectory() as directory:
            index = {"GIT_INDEX_FILE": os.path.join(directory, "index")}
            git = Git(self.here.directory, {**(self.here.environment or {}), **index})
            git.run("read-tree", tree)
            strict = ["--error-unmatch"] if paths else []
            rows = git.fields("ls-files", "-s", "-z", "--full-name", *strict, "--", *(paths or [":/"]))
            entries = _entries(rows)
            root = Git(self.git.directory, {**(self.git.environment or {}), **index})
            filters = attributes(root, [path for _, path in entries], "filter", cached=True)
        return self._read([(oid, path) for oid, path in entries if filters[path]["filter"] == "theta"])

    def _read(self, entries: Sequence[tuple[str, str]]) -> list[ModelFile]:
        with self.git.blobs() as blobs:
            return [ModelFile(path, oid, read_manifest(blobs, oid)) for oid, path in entries]

    def missing(self, manifest: Manifest) -> list[Blob]:
        """The objects of a manifest that are not in the store, or not whole."""
        return [blob for blob in manifest.needs() if self.store.size(blob.digest) != blob.size]


def read_manifest(blobs: BlobReader, oid: str) -> bytes | None:
    """The text of a blob that claims to be a manifest, else None."""
    return blobs.read(oid, start=MAGIC, limit=MAX_TEXT)


def read_stub(path: str) -> bytes | None:
    """The manifest that stands where a model file should; None if something else does, or nothing."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            head = file.read(len(MAGIC))
            return head + (file.read(MAX_TEXT) or b"") if head == MAGIC else None
    except OSError:
        return None


def _entries(rows: Iterable[str]) -> list[tuple[str, str]]:
    """Object and path of each merged row of ``ls-files -s``: ``<mode> <object> <stage>TAB<path>``."""
    parsed = (row.partition("\t") for row in rows)
    return [(meta.split()[1], path) for meta, _, path in parsed if meta.endswith(" 0")]


def attributes(git: Git, paths: Sequence[str], *names: str, cached: bool = False) -> dict[str, dict[str, str]]:
    """The value of each attribute for each path, as ``git check-attr`` spells it."""
    source = ["--cached"] if cached else []
    stdin = b"".join(os.fsencode(path) + b"\0" for path in paths)
    fields = iter(git.fields("check-attr", "-z", "--stdin", *source, *names, stdin=stdin))
    found: dict[str, dict[str, str]] = {path: {} for path in paths}
    for path, name, value in zip(fields, fields, fields, strict=True):
        found[path][name] = value
    return found

"""Migrate: the history of all branches and tags again, with models as manifests, or without them.

All refs change in one step, after everything that they lead to is written; until then nothing has happened. The old
ones stay under ``refs/theta/original``, so that ``undo`` can put them back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from ..catalogue import open_catalogue
from ..errors import ThetaError, UsageError
from ..git import Git
from ..repository import Repository, attributes
from .conversions import Bench, Export, Import, Version
from .gitobjects import PackWriter
from .histories import History
from .relocation import Move, check_worktrees, relocate
from .transcription import probing

Progress = Callable[[int, int], None]  # commits done, and of how many

PATTERNS = tuple(
    f"*.{suffix}" for suffix in ("bin", "ckpt", "gguf", "h5", "hdf5", "keras", "npy", "npz", "pt", "pth", "safetensors")
)
_GIT_FILES = (".gitattributes", ".gitignore", ".gitmodules")  # git reads these itself, and never through a filter
_INSTALLED = {"theta": "filter.theta.smudge", "lfs": "filter.lfs.smudge"}


@dataclass(frozen=True, slots=True)
class Options:
    """``patterns`` of the files to import, as attributes have them; ``refs`` instead of all branches and tags;
    ``dry_run``: only tell which files there are."""

    patterns: Sequence[str] = ()
    refs: Sequence[str] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The refs that changed, how many commits are others now, and the versions of files that were converted."""

    refs: tuple[str, ...]
    commits: int
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class _Scope:
    """The commits of a migration, parents first, and its refs with what they point to."""

    commits: Sequence[str]
    refs: Mapping[str, str]
    paths: tuple[str, ...]


def migrate_in(repository: Repository, options: Options, progress: Progress) -> Report:
    """Make manifests of the files that match the patterns, plain ones and those of git-lfs alike.

    Raises ``ThetaError`` and changes nothing if something is in the way, or an LFS object cannot be had.
    """
    with _bench(repository, options, "theta") as bench:
        scope = _scope(bench.git, options.refs)
        matched = bench.probe.matching(options.patterns or PATTERNS, [*scope.paths, *_GIT_FILES])
        _refuse_git_files(matched)
        every = sorted(frozenset[str]().union(*matched.values()))
        stores = attributes(repository.git, every, "theta-store")
        modes = {path: word for path, words in stores.items() if (word := words["theta-store"]) in ("raw", "small")}
        change = Import(bench, {pattern: paths for pattern, paths in matched.items() if paths}, modes)
        return _migrate(bench, History(bench.reader, bench.pack, change, frozenset(every)), scope, progress)


def migrate_out(repository: Repository, options: Options, progress: Progress, *, plain: bool) -> Report:
    """Make git-lfs's pointers, or plain files, of all manifests. Raises ``ThetaError`` as ``migrate_in`` does."""
    with _bench(repository, options, "" if plain else "lfs") as bench:
        history = History(bench.reader, bench.pack, Export(bench, plain=plain), None)
        return _migrate(bench, history, _scope(bench.git, options.refs), progress)


def _refuse_git_files(matched: Mapping[str, Collection[str]]) -> None:
    for pattern, paths in matched.items():
        if bad := [path for path in _GIT_FILES if path in paths]:
            raise UsageError(f"{pattern!r} would match {bad[0]} itself: choose a narrower pattern")


@contextmanager
def _bench(repository: Repository, options: Options, needed: str) -> Iterator[Bench]:
    if repository.git.text("rev-parse", "--is-shallow-repository") == "true":
        raise ThetaError("a shallow clone lacks the history that is to be migrated: git fetch --unshallow")
    if not options.dry_run:
        _check_ready(repository, needed)
    git = repository.git.with_environment(GIT_NO_REPLACE_OBJECTS="1")
    with ExitStack() as stack:
        reader = stack.enter_context(git.blobs())
        catalogue = stack.enter_context(closing(open_catalogue(repository.store.root)))
        probe = stack.enter_context(probing())
        yield Bench(repository, git, reader, PackWriter(git), catalogue, probe, options.dry_run)


def _check_ready(repository: Repository, needed: str) -> None:
    if repository.root is None:
        return
    if needed and not repository.git.configured(_INSTALLED[needed]):
        command = "git theta install" if needed == "theta" else "git lfs install"
        raise ThetaError(f"the filters that write the files are not set up: {command}")
    check_worktrees(repository)


def _scope(git: Git, wanted: Sequence[str]) -> _Scope:
    refs = _refs(git, wanted)
    if not refs:
        return _Scope((), {}, ())
    stdin = "".join(f"{oid}\n" for oid in refs.values()).encode()
    listed = git.run("rev-list", "--topo-order", "--reverse", "--parents", "--stdin", stdin=stdin).stdout.decode()
    rows = [line.split() for line in listed.splitlines()]
    # A path that is in a merge but not in its first parent differs from that.
    pairs = "".join(" ".join(row[:2]) + "\n" for row in rows).encode()
    options = ("--stdin", "-r", "-z", "--root", "--no-renames", "--name-only", "--no-commit-id")
    paths = tuple(sorted(set(git.fields("diff-tree", *options, stdin=pairs))))
    return _Scope([row[0] for row in rows], refs, paths)


def _refs(git: Git, wanted: Sequence[str]) -> dict[str, str]:
    """Branches and tags with the commits and tag objects that they name. Raises ``UsageError`` for a name of none."""
    form = "--format=%(objecttype) %(objectname) %(symref) %(refname)"
    found: dict[str, str] = {}
    for group in [[name, f"refs/heads/{name}", f"refs/tags/{name}"] for name in wanted] or [
        ["refs/heads", "refs/tags"]
    ]:
        rows = [row.split(" ", 3) for row in git.text("for-each-ref", form, *group).splitlines()]
        if wanted and not rows:
            raise UsageError(f"there is no branch and no tag {group[0]!r}")
        found |= {name: oid for kind, oid, symref, name in rows if kind in ("commit", "tag") and not symref}
    return found


def _migrate(bench: Bench, history: History, scope: _Scope, progress: Progress) -> Report:
    history.commits(scope.commits, lambda done: progress(done, len(scope.commits)))
    moves = [Move(name, oid, history.renamed(oid)) for name, oid in scope.refs.items()]
    moves = [move for move in moves if move.new != move.old]
    rewritten = history.rewritten
    if moves:
        bench.pack.flush()
        relocate(bench.repository, moves, rewritten)
    return Report(tuple(move.ref for move in moves), len(rewritten), tuple(bench.versions))

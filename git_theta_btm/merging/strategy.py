"""The merge strategy: what git runs as ``git-merge-theta`` for ``git merge -s theta``.

git calls it with the literal ``HEAD`` for a merge. For a pick (``pull.twohead`` makes this the strategy of rebase and
cherry-pick too) there is a commit in that place, and what is to be applied is a change, not an average.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

from ..checkout.assembling import Version
from ..checkout.replacing import lingering
from ..checkout.switching import SKIP, STUBS, skips_smudge
from ..checkout.worktree import Means, materialise
from ..errors import ThetaError
from ..git import Git
from ..gitdir import is_set
from ..repository import ModelFile, Repository
from . import driver
from .gathering import Gathered, Unmerged, gather, merge_trees
from .heads import Head, Merge
from .program import command
from .renaming import scratch

if TYPE_CHECKING:
    from .mixing import Mixed

USAGE = "usage: git merge -s theta [-X KEY=VALUE]... COMMIT..."
_RESTORE = 2  # the exit code for which git restores what was before
_NO_OID = "0" * 40
_KINDS = {  # as git status calls them, by the stages that there are
    "1": "both deleted", "2": "added by us", "3": "added by them", "12": "deleted by them", "13": "deleted by us",
    "23": "both added", "123": "both modified",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """What git asks for."""

    options: tuple[tuple[str, str], ...]
    bases: tuple[str, ...]
    head: str
    remotes: tuple[str, ...]

    @property
    def picks(self) -> bool:
        """Whether a change is to be applied: a pick, a rebase."""
        return self.head != "HEAD"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the strategy: 0 if the index and the worktree hold the merge, 1 with conflicts, 2 if nothing was done."""
    try:
        call = parse(sys.argv[1:] if argv is None else argv)
        if call is None:
            driver.say(USAGE)
            return 129
        return run(Repository(), call)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - Python's own exit code, 1, is for conflicts
        if is_set("GIT_TRACE_THETA"):
            import traceback  # 8 ms

            traceback.print_exc()
        driver.say(f"theta: {driver.reason(error)}")
        return _RESTORE


def parse(words: Sequence[str]) -> Call | None:
    """``--key=value ... BASE... -- HEAD REMOTE...``; None for anything else."""
    if "--" not in words:
        return None
    place = list(words).index("--")
    options = [word[2:].partition("=") for word in words[:place] if word.startswith("--")]
    bases = tuple(word for word in words[:place] if not word.startswith("--"))
    heads = words[place + 1 :]
    if len(heads) < 2:
        return None
    return Call(
        tuple((key, value if sign else "true") for key, sign, value in options), bases, heads[0], tuple(heads[1:])
    )


def run(repository: Repository, call: Call) -> int:
    """Merge, and leave the result in the index and the worktree."""
    repository.worktree()
    if repository.git.run("diff-index", "--quiet", "--cached", call.head, "--", check=False).returncode:
        raise ThetaError("there are staged changes, which would become a part of it: commit or stash them first")
    return _pick(repository, call) if call.picks else _merge(repository, call)


# -- a merge -----------------------------------------------------------------------------------------------------------


def _merge(repository: Repository, call: Call) -> int:
    remotes = [Head(commit, os.environ.get(f"GITHEAD_{commit}", commit[:12])) for commit in call.remotes]
    merge = Merge(repository, remotes, call.bases)
    # Else the threads of NumPy's matrix library spin for 0.1 s when they are made, each on a core that others need.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    heavy = f"{__package__}.mixing"  # NumPy and all that computes takes as long to import as git to gather
    Thread(target=import_module, args=(heavy,), daemon=True).start()
    gathered = gather(repository.git, [merge.ours.commit, *call.remotes], command("gather"))
    from .mixing import mixed

    with mixed(repository, merge, gathered.tree, call.options) as models:
        tree = with_models(repository.git, gathered.tree, [model.row for model in models])
        conflicts = tuple(_mixed_in(row, models) for row in gathered.conflicts)
        versions = {model.row.path: version for model in models if (version := model.merged.version())}
        return place(repository, call.head, replace(gathered, tree=tree, conflicts=conflicts), versions)


def _mixed_in(row: Unmerged, models: Sequence[Mixed]) -> Unmerged:
    """A stage of a conflict about a model's name, or about whether it is to be there: with the merged model in the
    place of one that was merged, and never with a gathered one."""
    for model in models:
        if row.stage != "1" and row.path == model.row.path and row.oid in model.sources:
            return replace(row, oid=model.row.oid)
    return row


def with_models(git: Git, tree: str, models: Sequence[Unmerged]) -> str:
    """The tree with merged models in the place of gathered files."""
    if not models:
        return tree
    with scratch(git) as other:
        other.run("read-tree", tree)
        stage(other, models)
        return other.text("write-tree")


def stage(git: Git, rows: Sequence[Unmerged]) -> None:
    """Put rows into the index."""
    lines = (f"{row.mode} {row.oid} {row.stage}\t{row.path}\0" for row in rows)
    git.run("update-index", "-z", "--index-info", stdin=os.fsencode("".join(lines)))


def place(repository: Repository, head: str, result: Gathered, merged: dict[str, Version]) -> int:
    """Bring index and worktree from ``head`` to the result, models written out of band or, if they are ``merged``,
    linked, and conflicts into the index.

    Raises ``ThetaError`` if git refuses, as it does to overwrite what is not committed.
    """
    git = repository.git
    before = {model.path: model.oid for model in repository.models()}
    stubs = git.with_environment(**{SKIP: "1"})
    with lingering(map(repository.absolute, merged)):
        done = stubs.run(*STUBS, "read-tree", "-m", "-u", head, result.tree, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().removeprefix("error: ")
        remedy = "; commit, stash or move what is in the way" if "Cannot merge" in said else ""
        raise ThetaError(said.removesuffix(".") + remedy)
    models = [model for model in repository.models() if model.text is not None and before.get(model.path) != model.oid]
    if not skips_smudge(repository):
        _write(repository, models, merged)
    if not result.conflicts:
        return 0
    paths = dict.fromkeys(row.path for row in result.conflicts)
    stage(git, [*(Unmerged("0", _NO_OID, "0", path) for path in paths), *result.conflicts])
    stages = {path: "".join(sorted(row.stage for row in result.conflicts if row.path == path)) for path in paths}
    for line in (*result.said, *(f"CONFLICT ({_KINDS.get(stages[path], 'unmerged')}): {path}" for path in paths)):
        driver.say(line)
    return 1


def _write(repository: Repository, models: Sequence[ModelFile], merged: dict[str, Version]) -> None:
    for outcome in materialise(repository, models, Means(merged)):
        if outcome.problem:
            driver.say(f"theta: {outcome.path}: {outcome.problem}; left as a stub: 'git theta pull' tries again")


# -- a pick ------------------------------------------------------------------------------------------------------------


def _pick(repository: Repository, call: Call) -> int:
    """Apply the change from the base to the remote: git's three-way merge, with our driver for models."""
    git = repository.git
    if len(call.remotes) != 1 or len(call.bases) > 1:
        raise ThetaError("several commits cannot be picked at once")
    parent = git.text("commit-tree", f"{call.bases[0]}^{{tree}}", "-m", "base") if call.bases else None
    since = ["-p", parent] if parent else []
    ours, theirs = (
        git.text("commit-tree", f"{name}^{{tree}}", *since, "-m", "side") for name in (call.head, *call.remotes)
    )
    return place(repository, call.head, merge_trees(git, ours, theirs, command("pick")), {})


if __name__ == "__main__":
    sys.exit(main())

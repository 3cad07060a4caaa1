"""The merge strategy: what git runs as ``git-merge-theta`` for ``git merge -s theta``.

git calls it with the literal ``HEAD`` for a merge. For a pick (``pull.twohead`` makes this the strategy of rebase and
cherry-pick too) there is a commit in that place, and what is to be applied is a change, not an average.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..checkout.replacing import lingering
from ..checkout.switching import SKIP, STUBS, skips_smudge
from ..checkout.worktree import Means, materialise
from ..errors import ThetaError
from ..git import Git
from ..gitdir import is_set
from ..manifest import loads
from ..repository import ModelFile, Repository
from . import driver, pending
from .asking import ask
from .choosing import Chosen, choose
from .computing import Device
from .filing import Desk, Merged
from .gathering import Gathered, Unmerged, gather, merge_trees, split
from .globs import warnings
from .heads import Head, Merge, Trees
from .program import command
from .records import together
from .renaming import scratch

USAGE = "usage: git merge -s theta [-X KEY=VALUE]... COMMIT..."
_RESTORE = 2  # the exit code for which git restores what was before
_NO_OID = "0" * 40


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
    except (ThetaError, OSError) as error:
        if is_set("GIT_TRACE_THETA"):
            raise
        driver.say(f"theta: {error}")
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
    chosen = choose(repository.git, merge, call.options)
    gathered = gather(repository.git, [merge.ours.commit, *call.remotes], command("gather"))
    with Desk(repository, Device(chosen.device)) as desk:
        merged = merge_all(repository, merge, gathered, (chosen, desk))
        written = [_written(repository.git, gathered.tree, item) for item in merged]
        tree = with_models(repository.git, gathered.tree, written)
        if merged:
            record = together({item.path: chosen.record(item.path) for item in merged})
            blobs = {stage.path: stage.oid for stage in written}
            pending.write(repository.git, record, [merge.ours.commit, *call.remotes], blobs)
        return place(repository, call.head, replace(gathered, tree=tree), merged)


def merge_all(repository: Repository, merge: Merge, gathered: Gathered, means: tuple[Chosen, Desk]) -> list[Merged]:
    """Every model that more than one head changed, merged. All are planned before the first one is computed."""
    chosen, desk = means
    with repository.git.blobs() as blobs:
        trees = Trees(repository.git, blobs)
        changed = [(found.path, *split(text)) for found, text in trees.changed(merge.ours.commit, gathered.tree)]
        questions = [ask(trees, path, known, chosen) for path, _, known in changed if known]
    models = [
        *(tip for question in questions for tip in question.tips),
        *(loads(text) for _, text, known in changed if not known),
    ]
    for line in warnings(chosen.draft, models):
        driver.say(f"warning: {line}")
    return desk.merge_all(questions)


def _written(git: Git, tree: str, merged: Merged) -> Unmerged:
    """The row of a merged model in the index; its manifest is in git's store then."""
    oid = git.run("hash-object", "-w", "--stdin", stdin=merged.manifest.dumps()).stdout.decode().strip()
    mode = git.fields("ls-tree", "-z", tree, "--", f":(literal){merged.path}")[0].split()[0]
    return Unmerged(mode, oid, "0", merged.path)


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


def place(repository: Repository, head: str, result: Gathered, merged: Sequence[Merged]) -> int:
    """Bring index and worktree from ``head`` to the result, models written out of band, and conflicts into the index.

    Raises ``ThetaError`` if git refuses, as it does to overwrite what is not committed.
    """
    git = repository.git
    before = {model.path: model.oid for model in repository.models()}
    stubs = git.with_environment(**{SKIP: "1"})
    with lingering(repository.absolute(item.path) for item in merged):
        done = stubs.run(*STUBS, "read-tree", "-m", "-u", head, result.tree, check=False)
    if done.returncode:
        raise ThetaError(done.stderr.decode(errors="replace").strip().removeprefix("error: "))
    models = [model for model in repository.models() if model.text is not None and before.get(model.path) != model.oid]
    if not skips_smudge(repository):
        _write(repository, models, merged)
    if not result.conflicts:
        return 0
    paths = dict.fromkeys(row.path for row in result.conflicts)
    stage(git, [*(Unmerged("0", _NO_OID, "0", path) for path in paths), *result.conflicts])
    for line in (*result.said, *(f"CONFLICT: {path}" for path in paths)):
        driver.say(line)
    return 1


def _write(repository: Repository, models: Sequence[ModelFile], merged: Sequence[Merged]) -> None:
    old = {item.path: version for item in merged if (version := item.version())}
    for outcome in materialise(repository, models, Means(old)):
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
    return place(repository, call.head, merge_trees(git, ours, theirs, command("pick")), [])


if __name__ == "__main__":
    sys.exit(main())

"""The merge driver: what git runs for one model that both sides changed, ``git-theta-merge MODE %O %A %B %P``.

``MODE`` is ``auto`` in git's configuration: a merge mixes the experts by the configured strategy, and everything else
that git merges with, a cherry-pick, revert, rebase or stash, applies a change. The result takes ours' place.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import MergeConflict, ThetaError
from ..gitdir import is_set
from ..manifest import Manifest, is_manifest, loads
from ..repository import Repository
from . import pending
from .asking import question
from .caller import merges
from .choosing import choose
from .computing import Device
from .filing import Desk, Question
from .gathering import append
from .heads import Head, Merge, Trees
from .program import PROGRAM
from .recipe import Recipe

USAGE = f"usage: {PROGRAM} (auto | merge | pick | gather) BASE OURS THEIRS PATH"
_PREFIX = "GITHEAD_"


@dataclass(frozen=True, slots=True)
class Call:
    """What git asks for: three files that hold what it has stored, and the path that they stand for."""

    mode: str
    base: str
    ours: str
    theirs: str
    path: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the driver: 0 if ours holds the result, 1 for a conflict, with ours as it was."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 5 or words[0] not in ("auto", "merge", "pick", "gather"):
        say(USAGE)
        return 129
    call = Call(*words)
    try:
        _run(call)
    except (ThetaError, OSError) as error:
        if is_set("GIT_TRACE_THETA"):
            raise
        hint = "" if call.mode == "gather" else f"; 'git theta resolve {shlex.quote(call.path)}' merges it another way"
        say(f"theta: {error}{hint}" if call.path in str(error) else f"theta: {call.path}: {error}{hint}")
        return 1
    return 0


def _run(call: Call) -> None:
    base, ours, theirs = (_read(name) for name in (call.base, call.ours, call.theirs))
    repository = Repository()
    if call.mode == "gather":
        text = append(ours, _oid(repository, ours), theirs, _oid(repository, theirs))
    else:
        if not is_manifest(ours) or not is_manifest(theirs):
            raise MergeConflict("one side is not stored parameter by parameter: 'git add --renormalize' it there")
        before = loads(base) if is_manifest(base) else None
        picks = call.mode == "pick" or (call.mode == "auto" and not merges())
        asked = pick if picks else _question
        with Desk(repository) as desk:
            text = desk.merge(asked(repository, call.path, (loads(ours), loads(theirs)), before)).manifest.dumps()
    with open(call.ours, "wb") as file:
        file.write(text)


def _question(repository: Repository, path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> Question:
    """A merge of experts, of whose names and history no more is known than git tells its children."""
    remotes = [Head(name.removeprefix(_PREFIX), os.environ[name]) for name in os.environ if name.startswith(_PREFIX)]
    if len(remotes) != 1:
        return Question(path, tips, base, choose(repository.git, None, ()).plain(path))
    bases = repository.git.run("merge-base", "--all", "HEAD", remotes[0].commit, check=False).stdout.decode().split()
    merge = Merge(repository, remotes, bases)
    chosen = choose(repository.git, merge, ())
    with repository.git.blobs() as blobs:
        trees = Trees(repository.git, blobs)
        ancestor = Head(bases[0], "the base") if base and bases else None
        heads = [merge.ours, *remotes]
        found = question(trees, path, (chosen.whole(path), base, ancestor), list(zip(heads, tips, strict=True)))
    pending.write(repository.git, chosen.record(path), [merge.ours.commit, remotes[0].commit])
    return found


def pick(_: Repository, path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> Question:
    """A change that is applied: ours and what theirs did since the base. Whoever changed which parameters there are has
    the say about that; if both did, it is a conflict."""
    ours, theirs = tips
    if base is None or _names(ours) == _names(theirs):
        return Question(path, tips, base, Recipe("apply"))
    if _names(ours) == _names(base):
        return Question(path, (theirs, ours), base, Recipe("apply", missing="any"))
    if _names(theirs) == _names(base):
        return Question(path, tips, base, Recipe("apply", missing="any"))
    return Question(path, tips, base, Recipe("apply"))


def _names(manifest: Manifest) -> list[tuple[str, object]]:
    return [(entry.name, entry.tensor) for entry in manifest.entries]


def _read(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


def _oid(repository: Repository, text: bytes) -> str:
    return repository.git.run("hash-object", "--stdin", stdin=text).stdout.decode().strip()


def say(message: str) -> None:
    """One line for people: standard output belongs to the command that git runs."""
    print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""A three-way merge of one model: what the driver makes of the three files that git hands it."""

from __future__ import annotations

import os

from ..errors import MergeConflict
from ..manifest import Manifest, is_manifest, loads
from ..repository import Repository
from . import pending
from .asking import based, question
from .caller import merges
from .choosing import choose
from .computing import Device
from .filing import Desk, Question
from .heads import Head, Merge, Trees
from .recipe import Recipe

_PREFIX = "GITHEAD_"


def merge(path: str, versions: tuple[bytes, bytes, bytes], mode: str) -> bytes:
    """The manifest that base, ours and theirs become.

    Raises ``MergeConflict``, and ``ObjectError`` for an input that is missing or corrupt.
    """
    before, ours, theirs = versions
    if not is_manifest(ours) or not is_manifest(theirs):
        raise MergeConflict("one side is not stored parameter by parameter: 'git add --renormalize' it there")
    repository = Repository()
    tips, base = (loads(ours), loads(theirs)), loads(before) if is_manifest(before) else None
    if mode == "pick" or (mode == "auto" and not merges()):
        with Desk(repository) as desk:
            return desk.merge(pick(path, tips, base)).manifest.dumps()
    return _mix(repository, path, tips, base)


def _mix(repository: Repository, path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> bytes:
    """A merge of experts, of whose names and history no more is known than git tells its children."""
    remotes = [Head(name.removeprefix(_PREFIX), os.environ[name]) for name in os.environ if name.startswith(_PREFIX)]
    if len(remotes) != 1:
        with Desk(repository) as desk:
            recipe = choose(repository.git, None, ()).plain(path)
            return desk.merge(Question(path, tips, base, recipe)).manifest.dumps()
    bases = repository.git.run("merge-base", "--all", "HEAD", remotes[0].commit, check=False).stdout.decode().split()
    heads = Merge(repository, remotes, bases)
    chosen = choose(repository.git, heads, ())
    with repository.git.blobs() as blobs:
        sides = [(heads.ours, tips[0]), (remotes[0], tips[1])]
        trees = Trees(repository.git, blobs)
        found = question(trees, path, (chosen.whole(path), *based(trees, path, chosen, base)), sides)
    with Desk(repository, Device(chosen.device)) as desk:
        text = desk.merge(found).manifest.dumps()
    oid = repository.git.run("hash-object", "--stdin", stdin=text).stdout.decode().strip()
    pending.write(repository.git, chosen.record(path), [heads.ours.commit, remotes[0].commit], {path: oid})
    return text


def pick(path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> Question:
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

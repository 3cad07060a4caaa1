"""A three-way merge of one model: what the driver makes of the three files that git hands it."""

from __future__ import annotations

import os

from ..errors import MergeConflict
from ..manifest import Manifest, is_manifest, loads, spell
from ..repository import Repository
from . import driver, pending
from .asking import based, question
from .caller import merges
from .choosing import choose
from .computing import Device
from .filing import Desk, Question
from .heads import Head, Merge, Trees
from .recipe import Recipe
from .records import Record
from .remainder import Remainders
from .replaying import Replay, replay

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
    git = repository.git
    remotes = [Head(name.removeprefix(_PREFIX), os.environ[name]) for name in os.environ if name.startswith(_PREFIX)]
    again = Replay() if remotes else replay(git)
    remotes = remotes or list(again.remotes)
    if len(remotes) != 1:
        with Desk(repository) as desk:
            return desk.merge(Question(path, tips, base, choose(git, None, ()).plain(path))).manifest.dumps()
    bases = git.run("merge-base", "--all", "HEAD", remotes[0].commit, check=False).stdout.decode().split()
    heads = Merge(repository, remotes, bases)
    if again.record:
        found, record, device = again.question(repository, heads, path, tips), again.record, Device()
    else:
        found, record, device = _configured(repository, heads, path, (*tips, base))
    _mention(Remainders(repository), path, tips, base)
    with Desk(repository, device) as desk:
        text = desk.merge(found).manifest.dumps()
    oid = git.run("hash-object", "--stdin", stdin=text).stdout.decode().strip()
    pending.write(git, record, [heads.ours.commit, remotes[0].commit], {path: oid})
    return text


def _mention(remainders: Remainders, path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> None:
    """Say it if theirs has changed what no strategy has to do with: the first model lends that to the result."""
    ours, theirs = tips
    if base is None or not _names(ours) == _names(theirs) == _names(base):
        return
    if not remainders.alike(theirs, base) and not remainders.alike(theirs, ours):
        driver.say(f"theta: {spell(path)}: metadata, counters and the like stay ours'; theirs has changed them")


def _configured(
    repository: Repository, heads: Merge, path: str, versions: tuple[Manifest, Manifest, Manifest | None]
) -> tuple[Question, Record, Device]:
    """A merge in the way that is configured, what is recorded of it, and where it is computed."""
    *tips, base = versions
    chosen = choose(repository.git, heads, ())
    with repository.git.blobs() as blobs:
        sides = list(zip((heads.ours, *heads.remotes), tips, strict=True))
        trees = Trees(repository.git, blobs)
        found = question(trees, path, (chosen.whole(path), *based(trees, path, chosen, base)), sides)
    return found, chosen.record(path), Device(chosen.device)


def pick(path: str, tips: tuple[Manifest, Manifest], base: Manifest | None) -> Question:
    """A change that is applied: ours and what theirs did since the base.

    Which parameters there are, and what else is in the file, whoever changed it has the say about; he comes first. If
    both did in different ways, it is a conflict. Raises ``MergeConflict``, and ``ObjectError``.
    """
    ours, theirs = tips
    remainders = Remainders(Repository())
    for like in (remainders.same, remainders.alike):
        if _names(ours) == _names(theirs) and like(ours, theirs):
            return Question(path, tips, base, Recipe("apply"))
        if base is not None and _names(ours) == _names(base) and like(ours, base):
            return Question(path, (theirs, ours), base, Recipe("apply", missing="any"))
        if base is not None and _names(theirs) == _names(base) and like(theirs, base):
            return Question(path, tips, base, Recipe("apply", missing="any"))
    names = [_names(version) for version in (ours, theirs, base) if version]
    if base is None or all(names.count(found) == 1 for found in names):  # then it is about parameters
        Question(path, tips, base, Recipe("apply")).steps  # noqa: B018 - raises
    raise MergeConflict(
        f"{spell(path)}: what is beside its parameters (metadata, counters, names) was changed on both sides: "
        "'--ours' or '--theirs' takes a version, '--strategy apply' keeps what ours has and adds up the parameters"
    )


def _names(manifest: Manifest) -> list[tuple[str, object]]:
    return [(entry.name, entry.tensor) for entry in manifest.entries]

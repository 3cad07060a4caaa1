"""The checkup: what can be wrong with an installation, a repository and its worktree, and what helps.

Each check is a function that yields findings and changes nothing; repairs are apart from them, by the finding's code.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from ..checkout.worktree import materialise
from ..errors import ConflictMarkers, ManifestError
from ..git import Git
from ..manifest import MAGIC, is_later
from ..remotes import hooks
from ..repository import ModelFile, Repository, attributes, read_manifest, read_stub
from ..setup.install import KEYS, OLDEST_GIT, effective, has_lfs, install, is_ours, is_runnable

_STALE = 24 * 3600  # seconds, as the store's own sweep
_TRANSLATIONS = ("text", "eol", "ident", "working-tree-encoding")
_HARMLESS = ("unset", "unspecified")
_HOOKS = {
    hooks.PUSH: "git push would not bring objects along",
    hooks.MESSAGE: "the commit of a plain git merge would not say how models were merged",
}
_STORES = (*_HARMLESS, "raw", "fast", "small")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, and what to type; ``fixable`` if ``doctor --fix`` can do it."""

    code: str
    path: str
    message: str
    remedy: str
    fixable: bool = False


def examine(repository: Repository) -> list[Finding]:
    """All findings, the most general first."""
    models = repository.models()
    checks: Sequence[Iterable[Finding]] = (
        check_programs(repository.git),
        check_configuration(repository.git),
        check_hook(repository),
        check_manifests(repository, models),
        check_attributes(repository, models),
        check_lost_attributes(repository, models),
        check_store(repository.store.root),
    )
    return [finding for check in checks for finding in check]


def repair(repository: Repository, findings: Sequence[Finding]) -> None:
    """Repair what is fixable; ``examine`` again to see what is left."""
    for code in dict.fromkeys(finding.code for finding in findings if finding.fixable):
        _REPAIRS[code](repository, [finding for finding in findings if finding.code == code])


# -- checks ----------------------------------------------------------------------------------------------------------


def check_programs(git: Git) -> Iterator[Finding]:
    """git and git-lfs."""
    if git.version() < OLDEST_GIT:
        yield Finding("git-old", "", "git is too old", f"install git {'.'.join(map(str, OLDEST_GIT))} or newer")
    if not has_lfs(git):
        yield Finding("lfs-missing", "", "git-lfs is not installed", "install git-lfs: it carries objects to remotes")


def check_configuration(git: Git) -> Iterator[Finding]:
    """The keys that ``install`` writes, as git sees them here."""
    values = effective(git)
    if not values:
        yield Finding("not-installed", "", "git does not know the filters", "git theta install", fixable=True)
        return
    for key in KEYS:
        value = values.get(key)
        if value is None:
            yield Finding("key-missing", key, "not set", "git theta install", fixable=True)
        elif not is_ours(key, value):
            yield Finding("key-foreign", key, f"set to {value!r} by something else", "git theta install --force")
        elif key in ("filter.theta.clean", "filter.theta.smudge") and not is_runnable(value):
            yield Finding("program-missing", key, f"there is no program {value!r}", "git theta install", fixable=True)


def check_hook(repository: Repository) -> Iterator[Finding]:
    """The hooks: where there are objects that a push must bring along, and merges that tell what became of models."""
    git, bare = repository.git, repository.root is None
    if not hooks.needed(git, repository.store.root, bare=bare):
        return
    for hook, words in list(_HOOKS.items())[: 1 if bare else None]:
        found = hooks.state(git, hook)
        if found == "foreign":
            yield Finding("hook-foreign", hooks.path(git, hook), "a program of its own", hooks.remedy(git, hook))
        elif found != "installed":
            yield Finding(f"hook-{found}", hooks.path(git, hook), words, "git theta install --local", fixable=True)


def check_manifests(repository: Repository, models: Iterable[ModelFile]) -> Iterator[Finding]:
    """What stands in the index and in the worktree for each model file."""
    for model in models:
        try:
            yield from _check_manifest(repository, model)
        except ConflictMarkers:
            remedy = f"git checkout --ours|--theirs -- {model.path}, or git checkout <commit> -- {model.path}"
            yield Finding("conflict-markers", model.path, "conflict markers were committed or staged", remedy)
        except ManifestError as error:
            if is_later(model.text or b""):
                words = "a manifest of a later version, which needs a newer git-theta-btm"
                yield Finding("manifest-later", model.path, words, "pip install --upgrade git-theta-btm")
            else:
                yield Finding("manifest-broken", model.path, str(error), f"git checkout <commit> -- {model.path}")


def _check_manifest(repository: Repository, model: ModelFile) -> Iterator[Finding]:
    path, manifest = model.path, model.manifest
    if manifest is None:
        with repository.git.blobs() as blobs:
            if blobs.read(model.oid, limit=1):  # an empty file stays one
                remedy = f"git add --renormalize -- {path}"
                yield Finding("plain-blob", path, "git holds the file itself, not a manifest", remedy)
        return
    missing = repository.missing(manifest)
    stub = read_stub(repository.absolute(path)) is not None
    if missing and stub:
        words = f"a stub: {len(missing)} of its objects are not here, such as {missing[0].digest}"
        yield Finding("objects-missing", path, words, "copy them from another clone's theta/objects: git theta pull")
    elif missing:
        words = f"{len(missing)} of its objects are not here, such as {missing[0].digest}"
        yield Finding("objects-lost", path, words, f"git theta fsck; git add --renormalize -- {path}")
    elif stub:
        yield Finding("stub", path, "a stub, though all its objects are here", f"git theta pull {path}", fixable=True)


def check_attributes(repository: Repository, models: Sequence[ModelFile]) -> Iterator[Finding]:
    """Attributes that would spoil a manifest (translations of text, and no merge driver), or that mean nothing."""
    found = attributes(repository.git, [model.path for model in models], *_TRANSLATIONS, "merge", "theta-store")
    for path, values in found.items():
        if values["merge"] != "theta":
            words = "without merge=theta git would merge manifests line by line"
            yield Finding("merge-attribute", path, words, "give its pattern filter=theta merge=theta -text")
        if values["theta-store"] not in _STORES:
            words = f"theta-store={values['theta-store']} means nothing: it is stored as with theta-store=fast"
            yield Finding("store-attribute", path, words, "set theta-store=raw, fast or small for it in .gitattributes")
        if values["text"] == "unset":
            values = {**values, "eol": "unset"}  # it counts only where text does
        wrong = [f"{name}={values[name]}" for name in _TRANSLATIONS if values[name] not in _HARMLESS]
        if wrong:
            words = f"git would translate it: {' '.join(wrong)}"
            yield Finding("translation", path, words, f"set -{wrong[0].partition('=')[0]} for it in .gitattributes")


def check_lost_attributes(repository: Repository, models: Sequence[ModelFile]) -> Iterator[Finding]:
    """Manifests in the index of files that have the filter no more: a clone would check out text."""
    if repository.root is None:
        return
    known = {model.path for model in models}
    # Inside git, for all files at once; most of them are code, and none is started a process for.
    grep = ("grep", "--cached", "-I", "-l", "-z", "-F", "-e", MAGIC.decode())
    suspects = [path for path in repository.git.fields(*grep, check=False) if path not in known]
    with repository.git.blobs() as blobs:
        for row in repository.git.fields("ls-files", "-s", "-z", "--", *suspects) if suspects else ():
            meta, _, path = row.partition("\t")
            if read_manifest(blobs, meta.split()[1]):
                words = "a manifest without filter=theta: a clone would check out text"
                yield Finding("attribute-missing", path, words, f"git theta track {path}")


def check_store(root: str) -> Iterator[Finding]:
    """What killed processes left, and the catalogue."""
    stale = list(_stale(root))
    if stale:
        words = f"{len(stale)} files that killed processes left behind"
        yield Finding("temporary-files", os.path.dirname(stale[0]), words, "git theta doctor --fix", fixable=True)
    path = _catalogue(root)
    if os.path.exists(path):
        try:
            with closing(
                sqlite3.connect(f"file:{path.replace('%', '%25').replace('?', '%3f')}?mode=ro", uri=True)
            ) as db:
                broken = db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok"
        except sqlite3.DatabaseError:
            broken = True
        if broken:
            yield Finding("catalogue", path, "the catalogue is broken", "delete it: it is a cache", fixable=True)


def _stale(root: str) -> Iterator[str]:
    with suppress(FileNotFoundError):
        for entry in os.scandir(os.path.join(root, "tmp")):
            if entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE:
                yield entry.path


def _catalogue(root: str) -> str:
    return os.path.join(root, "catalogue.sqlite3")


# -- repairs ---------------------------------------------------------------------------------------------------------


def _install(repository: Repository, _: Sequence[Finding]) -> None:
    install(repository.git, "local")  # the nearest scope wins over whatever is wrong elsewhere


def _install_hook(repository: Repository, _: Sequence[Finding]) -> None:
    hooks.install(repository.git)


def _materialise(repository: Repository, findings: Sequence[Finding]) -> None:
    paths = {finding.path for finding in findings}
    materialise(repository, [model for model in repository.models() if model.path in paths])


def _sweep(repository: Repository, _: Sequence[Finding]) -> None:
    repository.store.sweep()


def _delete_catalogue(repository: Repository, _: Sequence[Finding]) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(_catalogue(repository.store.root) + suffix)


_REPAIRS: dict[str, Callable[[Repository, Sequence[Finding]], None]] = {
    "not-installed": _install,
    "key-missing": _install,
    "program-missing": _install,
    "hook-missing": _install_hook,
    "hook-outdated": _install_hook,
    "stub": _materialise,
    "temporary-files": _sweep,
    "catalogue": _delete_catalogue,
}

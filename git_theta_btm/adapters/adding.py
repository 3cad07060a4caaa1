"""Adding an update: model files in the worktree get new values from an adapter or another file, and are staged.

The base of every change is what HEAD has. Files are replaced whole or not at all, and nothing is replaced unless every
tensor of the update found its parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ..catalogue import open_catalogue
from ..changes import diff
from ..errors import ThetaError
from ..manifest import Entry, Manifest, loads
from ..remotes.lfs import adopt, media
from ..repository import ModelFile, Repository, attributes, read_stub
from ..rewrite import replacing
from .applying import Bench, Progress
from .edits import Edit, Recipe, recipe
from .files import Update, read_update
from .naming import Names

_LITERAL = ":(top,literal)"


@dataclass(frozen=True, slots=True)
class Updated:
    """One file: the digest of the version that was its base, that of the new one (none if nothing was done), the
    parameters that changed, and the bytes of factors that their new values are stored as."""

    path: str
    base: str
    digest: str | None
    parameters: tuple[str, ...]
    factors: int = 0


@dataclass(frozen=True, slots=True)
class _Target:
    """A file of the worktree, its version in HEAD, and what is to become of its parameters."""

    path: str
    manifest: Manifest
    recipes: Mapping[str, Recipe]


@dataclass(frozen=True, slots=True)
class Request:
    """Which update to take from where, and whether to stop before anything is changed."""

    kind: str
    data: str
    dry_run: bool = False


def add_update(repository: Repository, paths: Sequence[str], request: Request, progress: Progress) -> list[Updated]:
    """Apply an update to model files, which together must have all parameters that it names, and stage them.

    Raises ``ThetaError`` for a file that differs from HEAD, and for an update that does not fit.
    """
    manifests = {model.path: _committed(repository, model) for model in repository.models(*paths)}
    _check_unchanged(repository, list(manifests))
    with ExitStack() as stack:
        update = read_update(request.kind, request.data, stack)
        _check_bases(update, manifests)
        targets = [target for target in _resolve(update.edits, manifests) if target.recipes]
        if request.dry_run:
            return [Updated(item.path, item.manifest.digest, None, tuple(item.recipes)) for item in targets]
        factors = _apply(repository, targets, progress)
    repository.git.run("add", "--", *(_LITERAL + target.path for target in targets))
    return [_outcome(repository, target, factors[target.path]) for target in targets]


def _committed(repository: Repository, model: ModelFile) -> Manifest:
    """The version in HEAD. Raises ``ThetaError`` if there is none, or only a stub of it in the worktree."""
    shown = repository.relative(model.path)
    committed = ModelFile(model.path, "", repository.git.blob(f"HEAD:{model.path}"))
    if not committed.text:
        raise ThetaError(f"{shown} is not committed yet: an update is based on the version in HEAD")
    if not model.text:
        raise ThetaError(f"git holds {shown} as it is: git add --renormalize {shown}, and commit it first")
    if read_stub(repository.absolute(model.path)) is not None:
        raise ThetaError(f"{shown} is a stub: git theta pull {shown}")
    manifest = committed.manifest
    assert manifest is not None
    adopt(list(repository.missing(manifest)), media(repository.git, repository.common), repository.store)
    return manifest


def _check_unchanged(repository: Repository, paths: Sequence[str]) -> None:
    options = ("--porcelain", "-z", "--untracked-files=no", "--no-renames", "--")
    rows = repository.git.fields("status", *options, *(_LITERAL + path for path in paths)) if paths else []
    if rows:
        shown = repository.relative(rows[0][3:])
        raise ThetaError(
            f"{shown} differs from HEAD, which an update is based on: commit it, or git restore -SW {shown}"
        )


def _check_bases(update: Update, manifests: Mapping[str, Manifest]) -> None:
    for path, manifest in manifests.items():
        if update.bases and manifest.digest not in update.bases:
            made = " or ".join(update.bases)[:200]
            raise ThetaError(f"the update was made for version {made}, but {path} in HEAD is {manifest.digest}")


def _resolve(edits: Sequence[Edit], manifests: Mapping[str, Manifest]) -> list[_Target]:
    """For each file, which parameters change and how. Raises ``ThetaError`` unless every edit found its parameter."""
    entries: dict[str, tuple[str, Entry]] = {}
    for path, manifest in manifests.items():
        for entry in manifest.entries:
            if entries.setdefault(entry.name, (path, entry))[0] != path:
                raise ThetaError(f"both {entries[entry.name][0]} and {path} have {entry.name}: name one of them")
    names = Names(entries)
    recipes: dict[str, dict[str, Recipe]] = {path: {} for path in manifests}
    for name, edit in named(edits, names):
        path, entry = entries[name]
        if name in recipes[path]:
            raise ThetaError(f"two tensors of the update are for {name}")
        recipes[path][name] = recipe(edit, entry.tensor)
    return [_Target(path, manifest, recipes[path]) for path, manifest in manifests.items()]


def named(edits: Sequence[Edit], names: Names) -> list[tuple[str, Edit]]:
    """Edits under the names of their parameters. An IA3 vector that scales a layer's output scales its bias, too.

    Raises ``ThetaError`` for those that are none's.
    """
    found = [(names.find(edit.target), edit) for edit in edits]
    if unknown := [edit.target for name, edit in found if name is None]:
        raise names.unknown(unknown)
    changes = [(name, edit) for name, edit in found if name]
    for name, edit in list(changes):
        bias = name.removesuffix("weight") + "bias"
        if edit.kind == "ia3" and edit.operands[0].tensor.shape[1:] == (1,) and bias in names:
            changes.append((bias, edit))
    return changes


def _apply(repository: Repository, targets: Sequence[_Target], progress: Progress) -> dict[str, int]:
    """Replace the files; returns for each how many bytes of factors its new values are stored as."""
    catalogue = open_catalogue(repository.store.root)
    factors = {}
    stores = attributes(repository.git, [target.path for target in targets], "theta-store")
    try:
        with ExitStack() as stack:
            for target in targets:
                bench = Bench(target.manifest, repository.store, catalogue)
                old, out = stack.enter_context(replacing(repository.absolute(target.path)))
                bench.apply(target.recipes, old, out)
                raw = stores[target.path]["theta-store"] == "raw"
                factors[target.path] = 0 if raw else bench.offer(target.recipes, out, progress)
    finally:
        catalogue.close()
    return factors


def _outcome(repository: Repository, target: _Target, factors: int) -> Updated:
    staged = loads(repository.git.blob(f":{target.path}"))
    changed = tuple(change.name for change in diff(target.manifest, staged))
    return Updated(target.path, target.manifest.digest, staged.digest, changed, factors)

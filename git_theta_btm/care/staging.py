"""Staging: the index names smaller objects for the same bytes, while the worktree stays as it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from .. import pack
from ..catalogue import Catalogue, NoCatalogue
from ..errors import ManifestError, ThetaError
from ..filters.places import Places
from ..manifest import Manifest, Stored
from ..repository import ModelFile, Repository, read_stub
from ..store import Memory, ObjectStore, get, put

New = tuple[ModelFile, Manifest, Manifest]  # a file of the index, its manifest, and the smaller one


def restage(
    repository: Repository, catalogue: Catalogue | NoCatalogue, places: Places, models: Sequence[ModelFile]
) -> list[str]:
    """Stage the manifests that ``places`` makes smaller, and return their paths.

    A file that is not in the worktree, or is a stub there, stays as it is: it would be modified otherwise. Raises
    ``ThetaError`` if git cannot write its index; nothing is staged then.
    """
    found = [new for model in models if (new := _smaller(repository, catalogue, places, model))]
    if not found:
        return []
    _remember(repository, catalogue, [(model, new) for model, _, new in found])
    try:
        _update(repository, found)
    except BaseException:
        _remember(repository, catalogue, [(model, old) for model, old, _ in found])
        raise
    return [model.path for model, _, _ in found]


def _smaller(repository: Repository, memory: Memory, places: Places, model: ModelFile) -> New | None:
    absolute = repository.absolute(model.path)
    if not os.path.isfile(absolute) or read_stub(absolute) is not None:
        return None
    try:
        manifest = model.manifest
    except ManifestError:
        return None
    new = restored(manifest, places, (repository.store, memory)) if manifest else None
    return (model, manifest, new) if manifest and new and own_size(new) < own_size(manifest) else None


def restored(manifest: Manifest, places: Places, ports: tuple[ObjectStore, Memory]) -> Manifest | None:
    """The same version with its storage as ``places`` has it; None if something of it is not here.

    Small encoded objects go into a pack. Raises ``ObjectError`` if one of them is broken.
    """
    lines: set[Stored] = set()
    for blob in manifest.blobs():
        found = places.find(blob.digest)
        if found is None:
            return None
        lines |= found
    lines |= _packs(lines, places, ports)
    implied = {blob.digest for blob in manifest.blobs() if not blob.packed}
    return replace(manifest, objects=tuple(sorted(ln for ln in lines if ln.kind != "raw" or ln.oid not in implied)))


def _packs(lines: set[Stored], places: Places, ports: tuple[ObjectStore, Memory]) -> set[Stored]:
    """Packs for the small encoded objects that are in none yet."""
    store, memory = ports
    loose = {ln.oid: get(store, ln.oid, ln.size) for ln in lines if ln.packed and not places.pack(ln.oid)}
    packs: set[Stored] = set()
    for members, data in pack.dumps(loose):
        stored = Stored("pack", put(store, data), len(data))
        memory.learn_stored((digest, stored) for digest in members)
        for digest in members:
            places.made(digest, stored)
        packs.add(stored)
    return packs


def own_size(manifest: Manifest) -> int:
    """Bytes of the objects that hold the blobs of a version, without those that they are based on."""
    encoded = {stored.rest[0]: stored.size for stored in manifest.objects if stored.encoded}
    return sum(encoded.get(blob.digest, blob.size) for blob in manifest.blobs())


def _remember(
    repository: Repository, catalogue: Catalogue | NoCatalogue, pairs: Sequence[tuple[ModelFile, Manifest]]
) -> None:
    """The next clean of the unchanged file then answers with this manifest, so that git finds nothing modified."""
    for model, manifest in pairs:
        catalogue.remember(repository.absolute(model.path), manifest, manifest.dumps())


def _update(repository: Repository, found: Sequence[New]) -> None:
    """Put the manifests into the index, each with the mode that its file has there."""
    modes = _modes(repository, [model for model, _, _ in found])
    rows = []
    for model, _, new in found:
        oid = repository.git.run("hash-object", "-w", "--stdin", stdin=new.dumps()).stdout.decode().strip()
        rows.append(f"{modes[model.path]} {oid} 0\t{model.path}\0")
    repository.git.run("update-index", "-z", "--index-info", stdin=os.fsencode("".join(rows)))


def _modes(repository: Repository, models: Sequence[ModelFile]) -> dict[str, str]:
    """Raises ``ThetaError`` if a file was staged anew in the meantime."""
    rows = repository.git.fields("ls-files", "-s", "-z", "--full-name")
    parsed = {path: meta.split() for meta, _, path in (row.partition("\t") for row in rows)}
    for model in models:
        if parsed.get(model.path, ["", ""])[1] != model.oid:
            raise ThetaError(f"{model.path} was staged anew in the meantime: repack it again")
    return {path: words[0] for path, words in parsed.items()}

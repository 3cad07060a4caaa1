"""Which models and texts an evaluation is of, where nobody says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import UsageError
from ...repository import Repository
from ..experts import checkpoints, experts
from ..settings import Settings
from .cells import Subject, commit, subject

_SHORT = 8  # hexadecimal digits of a commit


def current(repository: Repository, revisions: Sequence[str]) -> list[Subject]:
    """The models of these revisions, or the one that is checked out."""
    return [subject(repository, revision) for revision in _once(revisions or ["HEAD"])]


def everybody(repository: Repository) -> list[Subject]:
    """Every seed that an expert was branched from, and every expert. Raises ``UsageError`` if there is none."""
    found = experts(repository.git)
    if not found:
        raise UsageError("there is no expert yet: 'git btm branch DOMAIN' makes one")
    seeds = _once(expert.checkpoint.seed for expert in found if expert.checkpoint.seed)
    names = ["seed"] if len(seeds) == 1 else [f"seed {name[:_SHORT]}" for name in seeds]
    models = [subject(repository, name, label) for name, label in zip(seeds, names, strict=True)]
    return [*models, *(subject(repository, expert.tip, expert.branch) for expert in found)]


def history(repository: Repository, revisions: Sequence[str]) -> list[Subject]:
    """The checkpoints of revisions, the earliest first. Raises ``UsageError`` if there is none."""
    rows: dict[str, Subject] = {}
    for revision in revisions or ["HEAD"]:
        tip = commit(repository.git, revision)
        for name, checkpoint in reversed(list(checkpoints(repository.git, tip))):
            if name not in rows:
                rows[name] = subject(repository, name, f"{name[:_SHORT]} step {checkpoint.step}")
    if not rows:
        raise UsageError(f"{' '.join(revisions) or 'HEAD'} has no checkpoint: 'git btm train' commits them")
    return list(rows.values())


def domains(settings: Settings, subjects: Iterable[Subject], given: str | None, *, all_of_them: bool) -> list[str]:
    """The domains given, or those that the models were trained on, or all: for a seed, and if it is asked for."""
    if given:
        return _once(name for name in given.split(",") if name)
    own = [item.domain for item in subjects]
    wide = settings.domains if all_of_them or not all(own) else ()
    found = _once([*wide, *filter(None, own)])
    if not found:
        raise UsageError("on which text? --data DOMAIN says it")
    return found


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))

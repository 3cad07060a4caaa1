"""Ensembles: ``ensembles/<name>.json`` says which experts, with which prior, and how they are mixed. No weights are
copied; the experts are commits of this repository, or branches that are followed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import ThetaError, UsageError
from ...merging.weights import Shares, parse, posterior, top_k
from ...repository import Repository
from .. import places
from ..evaluating.cells import commit as commit_of
from ..experts import experts as all_experts
from . import filing

VERSION = 1
TYPES = ("simple-average", "uniform-prior", "cached-prior", "updating-prior", "clustering")
POSTERIORS = ("history", "last-token", "static")
_BRANCHES = "refs/heads/"


@dataclass(frozen=True, slots=True)
class Member:
    """An expert: its name, and the commit, or the branch by its full name, where it is."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Ensemble:
    """What the file says. ``clusters`` is the file of clusters that the type ``clustering`` weighs texts by."""

    experts: tuple[Member, ...]
    prior: tuple[float, ...] | None = None
    type: str = "uniform-prior"
    posterior: str = "history"
    topk: int | None = None
    clusters: str | None = None
    temperature: float = 0.1  # c-BTM's

    def __post_init__(self) -> None:
        names = [expert.name for expert in self.experts]
        if not names or len(set(names)) != len(names):
            raise UsageError("an ensemble has an expert at least, and none twice")
        if self.type not in TYPES or self.posterior not in POSTERIORS:
            raise UsageError(f"the type is one of {', '.join(TYPES)}; the posterior one of {', '.join(POSTERIORS)}")
        if self.type == "cached-prior" and self.prior is None:
            raise UsageError("the type cached-prior needs a prior: --prior priors/DOMAIN.json, or --prior .7,.3")
        if self.type == "clustering" and self.clusters is None:
            raise UsageError("the type clustering needs the clusters: 'git btm domains discover' makes them")
        if self.prior is not None and len(self.prior) != len(names):
            raise UsageError(f"{len(self.prior)} shares for {len(names)} experts")
        if self.topk is not None and (self.topk < 1 or self.type == "updating-prior"):
            raise UsageError("topk is at least 1, of a prior that stays as it is")

    @property
    def weights(self) -> tuple[float, ...]:
        """The prior that counts: uniform unless one is cached, cut to the ``topk`` largest, summing to 1."""
        cached = self.prior if self.type == "cached-prior" else None
        weights = cached or (1 / len(self.experts),) * len(self.experts)
        return weights if self.topk is None else top_k(weights, self.topk)

    @property
    def kept(self) -> Ensemble:
        """The ensemble of those experts that ``topk`` leaves: the others are never run."""
        if self.topk is None or self.type == "clustering":
            return self
        pairs = [pair for pair in zip(self.experts, self.weights, strict=True) if pair[1] > 0]
        prior = tuple(weight for _, weight in pairs) if self.prior is not None else None
        return replace(self, experts=tuple(member for member, _ in pairs), prior=prior, topk=None)

    def document(self) -> dict[str, Any]:
        """What the file holds."""
        names = [expert.name for expert in self.experts]
        rest: dict[str, Any] = {"type": self.type, "posterior": self.posterior, "topk": self.topk}
        if self.clusters is not None:
            rest |= {"clusters": self.clusters, "temperature": self.temperature}
        return {
            "version": VERSION,
            "experts": [{"name": expert.name, "revision": expert.revision} for expert in self.experts],
            "prior": None if self.prior is None else dict(zip(names, self.prior, strict=True)),
            **rest,
        }


def loads(text: str) -> Ensemble:
    """The ensemble in a file. Raises ``ThetaError`` for a text that is none."""
    try:
        found = json.loads(text)
        if found["version"] != VERSION:
            raise ThetaError(f"version {found['version']!r} needs another git-theta-btm")
        members = tuple(Member(_text(row["name"]), _text(row["revision"])) for row in found["experts"])
        shares = found.get("prior")
        prior = None if shares is None else _prior(parse(json.dumps(shares)), [member.name for member in members])
        topk, clusters = found.get("topk"), found.get("clusters")
        if not (topk is None or type(topk) is int) or not (clusters is None or isinstance(clusters, str)):
            raise TypeError
        temperature = float(found.get("temperature", 0.1))
        kinds = _text(found.get("type", "uniform-prior")), _text(found.get("posterior", "history"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ThetaError("is no ensemble: 'git btm ensemble create' makes one") from None
    return Ensemble(members, prior, *kinds, topk, clusters, temperature)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _prior(shares: Shares, names: Sequence[str]) -> tuple[float, ...]:
    if isinstance(shares, tuple):
        return shares
    return tuple(shares[name] for name in names)


def prior(text: str, names: Sequence[str]) -> tuple[float, ...]:
    """The prior over experts that ``--prior`` gives: numbers in their order, or a file of any kind that merges read.

    Numbers are made to sum to 1. Raises ``UsageError``.
    """
    try:
        given = tuple(map(float, text.split(",")))
    except ValueError:
        return posterior(text, names)
    shares = parse(json.dumps(list(given)))  # the same rules as in a file
    assert isinstance(shares, tuple)
    if len(shares) != len(names):
        raise UsageError(f"{len(shares)} shares for {len(names)} experts")
    return tuple(share / sum(shares) for share in shares)


# -- files -------------------------------------------------------------------------------------------------------------


def read(repository: Repository, name: str) -> Ensemble:
    """The ensemble of the worktree by its name. Raises ``ThetaError`` if there is none."""
    path = filing.name(name, places.ENSEMBLES)
    try:
        with open(repository.absolute(path), encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        raise ThetaError(f"there is no {path}: 'git btm ensemble create {name}' makes it") from None
    except UnicodeDecodeError:
        raise ThetaError(f"{path}: is no text in UTF-8") from None
    try:
        return loads(text)
    except ThetaError as error:
        raise ThetaError(f"{path}: {error}") from None


def check_new(repository: Repository, name: str) -> None:
    """Raise ``ThetaError`` if there is an ensemble of this name."""
    path = filing.name(name, places.ENSEMBLES)
    if os.path.lexists(repository.absolute(path)):
        raise ThetaError(f"{path} is there already: --force replaces it, 'git btm ensemble add {name}' changes it")


def keep(repository: Repository, name: str, ensemble: Ensemble, message: str, *, commit: bool = True) -> str:
    """Write the file; the commit, or nothing if none was wanted or needed."""
    path = filing.name(name, places.ENSEMBLES)
    return filing.write(repository, path, ensemble.document(), message, commit=commit)


def members(repository: Repository, names: Sequence[str], *, follow: bool = False) -> tuple[Member, ...]:
    """The experts of these names, or all, as they are now; ``follow`` has them be whatever their branch is later.

    A name may be ``NAME=REVISION``. Raises ``UsageError`` if there is no expert, ``ThetaError`` for an unknown one.
    """
    chosen = list(names) or [expert.branch for expert in all_experts(repository.git)]
    if not chosen:
        raise UsageError("there is no expert yet: 'git btm branch DOMAIN' makes one")
    found = []
    for word in chosen:
        name, _, revision = word.partition("=")
        known = commit_of(repository.git, revision or name)
        found.append(Member(name, _BRANCHES + name if follow and not revision else known))
    return tuple(found)


def added(ensemble: Ensemble, more: Sequence[Member]) -> Ensemble:
    """The ensemble with more experts, or with other versions of those it has. Its prior goes: it knows nothing of
    new ones."""
    rows: Mapping[str, Member] = {member.name: member for member in (*ensemble.experts, *more)}
    if rows.keys() == {member.name for member in ensemble.experts}:
        return replace(ensemble, experts=tuple(rows.values()))
    kind = "uniform-prior" if ensemble.type == "cached-prior" else ensemble.type
    return replace(ensemble, experts=tuple(rows.values()), prior=None, type=kind)


def without(ensemble: Ensemble, names: Sequence[str]) -> Ensemble:
    """The ensemble without some experts, whose shares of the prior are spread. Raises ``UsageError`` if it has not got
    them, or no other."""
    have = [member.name for member in ensemble.experts]
    if unknown := sorted(set(names) - set(have)):
        raise UsageError(f"it has no expert {unknown[0]!r}: it has {', '.join(have)}")
    kept = [index for index, name in enumerate(have) if name not in names]
    if not kept:
        raise UsageError("an ensemble has one expert at least")
    prior = ensemble.prior
    if prior is not None:
        whole = sum(prior[index] for index in kept)
        if not whole:
            raise UsageError("the experts that would be left have no share of the prior")
        prior = tuple(prior[index] / whole for index in kept)
    return replace(ensemble, experts=tuple(ensemble.experts[index] for index in kept), prior=prior)

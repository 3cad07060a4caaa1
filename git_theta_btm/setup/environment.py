"""What a report of a problem needs to say about this machine and this repository."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from .. import __version__
from ..errors import ThetaError
from ..git import Git
from ..repository import Repository
from .attributes import Tracked, tracked
from .install import KEYS, effective, is_ours, is_runnable

_PACKAGES = ("click", "numpy", "xxhash", "torch")


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of git's configuration, with its scope and the file it stands in."""

    key: str
    value: str
    scope: str
    origin: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The report. ``root`` is None outside a repository and in a bare one; sizes are in bytes."""

    versions: dict[str, str | None]
    filter: str
    settings: tuple[Setting, ...]
    root: str | None = None
    store: str | None = None
    objects: int = 0
    objects_size: int = 0
    catalogue: str | None = None
    catalogue_size: int = 0
    patterns: tuple[Tracked, ...] = ()


def surroundings() -> Surroundings:
    """Collect the report; outside a repository there is less of it."""
    git = Git()
    try:
        repository = Repository()
    except ThetaError:
        return Surroundings(versions(git), filter_state(git), settings(git))
    sizes = [repository.store.size(oid) or 0 for oid in repository.store]
    catalogue = os.path.join(repository.store.root, "catalogue.sqlite3")
    return Surroundings(
        versions(git),
        filter_state(git),
        settings(git),
        repository.root,
        repository.store.root,
        len(sizes),
        sum(sizes),
        catalogue,
        os.path.getsize(catalogue) if os.path.exists(catalogue) else 0,
        tuple(tracked(repository)) if repository.root else (),
    )


def versions(git: Git) -> dict[str, str | None]:
    """Versions by name, None for what is not there; nothing is imported to find out."""
    lfs = git.run("lfs", "version", check=False)
    found: dict[str, str | None] = {
        "git-theta-btm": __version__,
        "git": git.text("version").removeprefix("git version "),
        "git-lfs": lfs.stdout.decode(errors="replace").partition(" ")[0].removeprefix("git-lfs/") or None,
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        found[package] = None
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def filter_state(git: Git) -> str:
    """``installed``, ``missing``, ``incomplete``, ``foreign``, or ``broken`` if the program is not there."""
    values = effective(git)
    if not values:
        return "missing"
    if any(not is_ours(key, value) for key, value in values.items()):
        return "foreign"
    if len(values) < len(KEYS):
        return "incomplete"
    commands = (value for key, value in values.items() if key in ("filter.theta.clean", "filter.theta.smudge"))
    return "installed" if all(map(is_runnable, commands)) else "broken"


def settings(git: Git) -> tuple[Setting, ...]:
    """All of git's configuration that is about theta, in git's order: the last of one key wins."""
    wanted = r"^(filter|merge|diff)\.theta\.|^theta\.|^color\.theta"
    fields = git.fields("config", "-z", "--show-scope", "--show-origin", "--get-regexp", wanted, check=False)
    rows = zip(fields[::3], fields[1::3], fields[2::3], strict=True)
    return tuple(Setting(*pair.partition("\n")[::2], scope, origin) for scope, origin, pair in rows)

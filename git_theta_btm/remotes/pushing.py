"""A push: what is new in it goes to the remote, and a keep ref with it. The hook and ``git theta push`` do the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ThetaError
from ..git import Git
from ..manifest import Blob
from . import keeping
from .transfer import Need, Port, advertised, known, scan, send

_NOTHING = "0"  # git's name, repeated, for a ref that is not there


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to push: the name by which git-lfs is configured for it, and the URL, which may be the name too."""

    name: str
    url: str

    @classmethod
    def of(cls, git: Git, name: str) -> Remote:
        """A remote by its name, or by its URL."""
        url = git.run("remote", "get-url", "--push", name, check=False).stdout.decode().strip()
        return cls(name, url or name)


@dataclass(frozen=True, slots=True)
class Pushed:
    """The objects that the remote lacked, how many it was asked about, what to warn of, and if there are pointers of
    git-lfs in what is pushed."""

    sent: tuple[Blob, ...] = ()
    asked: int = 0
    warnings: tuple[str, ...] = ()
    pointers: bool = False


def updates(lines: str) -> list[str]:
    """The commits and tags that are to be on the remote, from what git tells a pre-push hook; githooks(5)."""
    rows = (line.split() for line in lines.splitlines())
    return [row[1] for row in rows if len(row) == 4 and row[1].strip(_NOTHING)]


def push(port: Port, remote: Remote, wanted: Sequence[str], *, everything: bool = False) -> Pushed:
    """Upload the objects that ``wanted`` commits need and the remote's own refs do not lead to; with ``everything``,
    those of all their history.

    Raises ``ThetaError`` naming file, parameter and object if one is missing, corrupt, or refused.
    """
    if not wanted:
        return Pushed()
    refs = advertised(port.git, remote.url)
    found = scan(port.git, wanted, [] if everything else known(port.git, refs.values()))
    sent = send(port, remote.name, found.needs, empty=not refs)
    warnings = [f"{broken}: what it needs is not pushed" for broken in found.broken]
    if found.needs and keeping.wanted(port.git, remote.name):
        warnings += _keep(port.git, remote, found.blobs, refs)
    return Pushed(tuple(sent), len(found.needs), tuple(warnings), found.pointers)


def preview(port: Port, remote: Remote, wanted: Sequence[str], *, everything: bool = False) -> list[Need]:
    """What ``push`` would upload."""
    present = [] if everything else known(port.git, advertised(port.git, remote.url).values())
    needs = scan(port.git, wanted, present).needs
    lacking = port.lfs(remote.name).lacking([need.blob for need in needs.values()])
    return [need for digest, need in needs.items() if digest in lacking]


def _keep(git: Git, remote: Remote, blobs: Sequence[Blob], refs: Iterable[str]) -> list[str]:
    """Have a keep ref; the objects are there without one, so that it cannot be had is only a warning."""
    try:
        keeping.keep(git, remote.url, blobs, list(refs))
    except keeping.Refused as error:
        once = ", and will not be asked again" if keeping.refuse(git, remote.name) else ""
        return [
            f"{remote.name} takes no refs below {keeping.PREFIX}, which keep objects from cleaning up{once}: {error}"
        ]
    except ThetaError as error:
        return [f"no ref keeps the objects on {remote.name} from cleaning up: {error}"]
    return []

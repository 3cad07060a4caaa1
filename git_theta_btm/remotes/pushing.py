"""A push: what is new in it goes to the remote, and a keep ref with it. The hook and ``git theta push`` do the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..errors import ThetaError
from ..git import Git
from ..manifest import Blob, Digest
from . import keeping
from .endpoints import literally, push_urls
from .transfer import Need, Port, advertised, known, scan, send

_NOTHING = "0"  # git's name, repeated, for a ref that is not there


@dataclass(frozen=True, slots=True)
class Remote:
    """Where to push: the name by which git-lfs is configured for it, or what was given instead, and the URLs; and the
    keep refs that git is about to push or delete there itself."""

    name: str
    urls: tuple[str, ...]
    keeps: frozenset[str] = frozenset()

    @classmethod
    def of(cls, git: Git, name: str) -> Remote:
        """A remote by its name, or by its URL. Raises ``ThetaError`` if it is neither."""
        return cls(name, tuple(push_urls(git, name)))


@dataclass(frozen=True, slots=True)
class Pushed:
    """The objects that the remote lacked, how many it was asked about, what to warn of, and if there are pointers of
    git-lfs in what is pushed."""

    sent: tuple[Blob, ...] = ()
    asked: int = 0
    warnings: tuple[str, ...] = ()
    pointers: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """What git tells a pre-push hook; githooks(5). Keep refs, which a mirror pushes, are apart: git-lfs would look for
    the objects that they name in a store of its own."""

    text: str
    commits: tuple[str, ...]
    keeps: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Lines:
        """The lines, and in them the commits and tags that are to be on the remote, and the keep refs."""
        rows = [row for row in map(str.split, text.splitlines()) if len(row) == 4]
        others = [row for row in rows if not row[2].startswith(keeping.PREFIX)]
        return cls(
            "".join(" ".join(row) + "\n" for row in others),
            tuple(row[1] for row in others if row[1].strip(_NOTHING)),
            frozenset(row[2] for row in rows if row[2].startswith(keeping.PREFIX)),
        )


def push(port: Port, remote: Remote, wanted: Sequence[str], *, everything: bool = False) -> Pushed:
    """Upload the objects that ``wanted`` commits need and the remote's own refs do not lead to; with ``everything``,
    those of all their history. A remote that is pushed to at several places is to have them at each.

    Raises ``ThetaError`` naming file, parameter and object if one is missing, corrupt, or refused.
    """
    done = [_push(port, remote, url, wanted, everything=everything) for url in remote.urls if wanted]
    return Pushed(
        tuple(dict.fromkeys(blob for pushed in done for blob in pushed.sent)),
        max((pushed.asked for pushed in done), default=0),
        tuple(dict.fromkeys(words for pushed in done for words in pushed.warnings)),
        any(pushed.pointers for pushed in done),
    )


def _push(port: Port, remote: Remote, url: str, wanted: Sequence[str], *, everything: bool) -> Pushed:
    port = replace(port, git=literally(port.git, url))
    refs = advertised(port.git, url)
    found = scan(port.git, wanted, [] if everything else known(port.git, refs.values()))
    sent = send(port, port.lfs(remote.name, url), found.needs, empty=not refs)
    warnings = [f"{broken}: what it needs is not pushed" for broken in found.broken]
    if found.needs and keeping.wanted(port.git, remote.name):
        warnings += _keep(port.git, replace(remote, urls=(url,)), found.blobs, refs)
    return Pushed(tuple(sent), len(found.needs), tuple(warnings), found.pointers)


def preview(port: Port, remote: Remote, wanted: Sequence[str], *, everything: bool = False) -> list[Need]:
    """What ``push`` would upload."""
    lacking: dict[Digest, Need] = {}
    for url in remote.urls:
        there = replace(port, git=literally(port.git, url))
        present = [] if everything else known(there.git, advertised(there.git, url).values())
        needs = scan(there.git, wanted, present).needs
        wanting = there.lfs(remote.name, url).lacking([need.blob for need in needs.values()])
        lacking |= {digest: need for digest, need in needs.items() if digest in wanting}
    return list(lacking.values())


def _keep(git: Git, remote: Remote, blobs: Sequence[Blob], refs: Iterable[str]) -> list[str]:
    """Have a keep ref; the objects are there without one, so that it cannot be had is only a warning."""
    try:
        keeping.keep(git, remote.urls[0], blobs, list(refs), remote.keeps)
    except keeping.Refused as error:
        once = ", and will not be asked again" if keeping.refuse(git, remote.name) else ""
        words = f"takes no refs below {keeping.PREFIX}, which keep objects from cleaning up{once}"
        return [f"{remote.name} {words}: {error}"]
    except ThetaError as error:
        return [f"no ref keeps the objects on {remote.name} from cleaning up: {error}"]
    return []

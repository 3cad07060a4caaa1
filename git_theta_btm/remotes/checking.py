"""The check of a remote: whether it has every object that its own branches and tags need.

A clone of the remote needs these; what is only here is not missing there, it has not been pushed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import ThetaError
from .endpoints import literally
from .pushing import Remote
from .transfer import Need, Port, advertised, known, remotes, scan

_TOLD = ("refs/heads/", "refs/tags/")  # of those that a fetch does not bring, such as refs/pull, nobody needs to hear


@dataclass(frozen=True, slots=True)
class Report:
    """How many objects ``remote`` was asked about, and which it lacks; manifests that are broken, and refs of the
    remote that lead to commits which are not here, so that what these need is not known."""

    remote: str
    objects: int
    missing: tuple[Need, ...]
    broken: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def check(port: Port, name: str = "", revisions: Sequence[str] = ()) -> Report:
    """Ask a remote, or the one that the branch follows, for each object that its refs need, or ``revisions`` alone:
    at each place where a push would go.

    No object moves. An object that is there with another size is missing; over HTTP only the server can tell. Raises
    ``ThetaError`` if there is no remote, it cannot be reached, or it cannot be asked.
    """
    chosen = name or next(iter(remotes(port.git)), "")
    if not chosen:
        raise ThetaError("there is no remote: git remote add origin <url>")
    reports = [_check(port, chosen, url, revisions) for url in Remote.of(port.git, chosen).urls]
    return Report(
        chosen,
        max(report.objects for report in reports),
        tuple(sorted({need for report in reports for need in report.missing}, key=str)),
        tuple(dict.fromkeys(words for report in reports for words in report.broken)),
        tuple(dict.fromkeys(ref for report in reports for ref in report.unknown)),
    )


def _check(port: Port, chosen: str, url: str, revisions: Sequence[str]) -> Report:
    port = replace(port, git=literally(port.git, url))
    lfs = port.lfs(chosen, url)
    if not lfs.can_tell:
        raise ThetaError(f"{chosen} is reached through a transfer agent, which does not tell what is there")
    refs = {} if revisions else advertised(port.git, url)
    tips = list(revisions) or known(port.git, refs.values())
    here = set(tips)
    found = scan(port.git, tips)
    lacking = lfs.lacking(found.blobs)
    missing = [need for need in found.needs.values() if need.blob.digest in lacking]
    unknown = [
        ref for ref, oid in refs.items() if ref.startswith(_TOLD) and not ref.endswith("^{}") and oid not in here
    ]
    return Report(chosen, len(found.needs), tuple(missing), found.broken, tuple(unknown))

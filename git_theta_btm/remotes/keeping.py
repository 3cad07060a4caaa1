"""Keep refs: trees of LFS pointers, one for each object, that tell servers what is still needed.

A manifest names objects in a way that only this program reads. GitLab's housekeeping and Gitea's garbage collection
delete LFS objects that no pointer in the repository names, and ``git lfs fetch --all`` does not fetch them. The refs
lead to trees, not commits, so no log shows them; their names follow from their content, so they never collide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import ThetaError
from ..git import Git
from ..manifest import Blob, Digest
from . import pointers
from .lfs import write_pointers

PREFIX = "refs/theta/keep/"
REFSPEC = f"+{PREFIX}*:{PREFIX}*"
MANY = 50  # keep refs on one remote, after which they become one
# By the way: it starts no maintenance, and leaves what the user fetched last in its place.
_QUIETLY = ("-c", "gc.auto=0", "-c", "maintenance.auto=false", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head")
_FETCH = (*_QUIETLY, "--no-recurse-submodules")
_OPTION = "theta.keepref"


class Refused(ThetaError):
    """A remote takes no keep refs."""


def wanted(git: Git, remote: str) -> bool:
    """Whether this remote is to have keep refs: ``theta.keepref``, and what was learned about the remote."""
    return all(git.configured(key, "true", kind="bool") == "true" for key in (_OPTION, _refusal(remote)))


def _refusal(remote: str) -> str:
    return f"remote.{remote}.thetakeepref"


def keep(git: Git, url: str, blobs: Sequence[Blob], present: Collection[str], moving: Collection[str] = ()) -> None:
    """Have a ref for these objects on a remote whose refs are ``present``, and leave alone those that are ``moving``:
    git, which pushes them itself, has been told where they are. Raises ``Refused`` or ``ThetaError``."""
    refs = sorted(ref for ref in present if ref.startswith(PREFIX))
    tree = write_pointers(git, blobs)
    if f"{PREFIX}{tree}" in {*refs, *moving}:
        return
    if len(refs) < MANY or moving:
        _push(git, url, f"{tree}:{PREFIX}{tree}")
        return
    # The new one is there before the old ones go; one that somebody adds meanwhile is not among them.
    git.run(*_FETCH, url, REFSPEC)
    held = {blob.digest: blob for blob in blobs}
    for ref in refs:
        held |= _read(git, ref)
    tree = write_pointers(git, held.values())
    _push(git, url, f"{tree}:{PREFIX}{tree}")
    gone = [ref for ref in refs if ref != f"{PREFIX}{tree}"]
    git.run("update-ref", "--stdin", stdin="".join(f"delete {ref}\n" for ref in gone).encode())
    _push(git, url, *(f":{ref}" for ref in gone))


def _push(git: Git, url: str, *refspecs: str) -> None:
    done = git.run("push", "--porcelain", "--no-verify", url, *refspecs, check=False)  # not the hook that this runs in
    if done.returncode:
        words = " ".join(done.stderr.decode(errors="replace").split())
        raise Refused(words) if b"\n!\t" in b"\n" + done.stdout else ThetaError(words)


def _read(git: Git, ref: str) -> dict[Digest, Blob]:
    """The objects that a keep ref names; what anyone else may have put into it is left out."""
    names = [row.split()[2] for row in git.text("ls-tree", "-r", ref).split("\n") if row]
    with git.blobs() as reader:
        found = [pointers.parse(reader.read(oid, limit=pointers.LIMIT) or b"") for oid in names]
    return {blob.digest: blob for blob in found if blob}


def refuse(git: Git, remote: str) -> bool:
    """Remember that a remote takes no keep refs; whether that is possible: not for one that has no name."""
    named = remote in git.text("remote").split("\n")
    return named and not git.run("config", "--local", _refusal(remote), "false", check=False).returncode


def follow(git: Git, remote: str) -> None:
    """Let every ``git fetch`` bring the keep refs of a remote, so that ``git lfs fetch --all`` gets all objects."""
    key = f"remote.{remote}.fetch"
    present = git.fields("config", "-z", "--get-all", key, check=False)
    mirror = any(spec.endswith("refs/*:refs/*") for spec in present)
    if present and not mirror and REFSPEC not in present and wanted(git, remote):
        git.run("config", "--local", "--add", key, REFSPEC, check=False)

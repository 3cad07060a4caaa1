"""Edit: the file that stood there becomes the next version where little is new in it, and nothing else is copied.

It has lost its name to git by then and gets it back when it is complete, so nobody ever finds half of one. It is only
done where nobody else could notice: no other name, no other process that has the file open or mapped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from ..manifest import Manifest
from .assembling import Assembler, Version
from .replacing import Expected, place

LEAST = 8 << 20  # bytes: a smaller file is copied in the time that it takes to find out whether it must be
_FEW = 8  # the part of a file that may be new: it is written to disk at once, which the copy of a file is not
_NOW = 1 | 2 | 4  # wait for what is on its way, write, wait: sync_file_range(2)


def worthwhile(old: Manifest, new: Manifest) -> bool:
    """Whether so little differs between two versions that one may become the other where it stands."""
    return old.size >= LEAST and (new.size - shared(old, new)) * _FEW <= new.size


def shared(old: Manifest, new: Manifest) -> int:
    """How many bytes of a version are in blobs that another has too."""
    before = set(old.blobs())
    return sum(blob.size for blob in new.blobs() if blob in before)


def named_again(version: Version, path: str, directory: str) -> Version:
    """The same version, with another name in a directory instead of a descriptor; as it is where that cannot be.

    A filter that git runs meanwhile takes what its caller's caller has open for something inherited, and reads it all.
    """
    spare = os.path.join(directory, f"{os.getpid()}-{os.urandom(8).hex()}")
    with suppress(OSError):  # another disk, or one without hard links
        os.makedirs(directory, exist_ok=True)
        os.link(path, spare, follow_symlinks=False)
        now = os.lstat(spare)
        if os.path.samestat(now, version.state) and now.st_nlink == 2:
            os.close(version.fd)
            return replace(version, fd=-1, spare=spare)
        os.unlink(spare)
    return version


def reopened(version: Version) -> Version | None:
    """The version with a descriptor again, to write to where that is allowed; None if somebody took its name."""
    if version.fd >= 0:
        return version
    for mode in (os.O_RDWR, os.O_RDONLY):
        with suppress(OSError):
            return replace(version, fd=os.open(version.spare, mode | os.O_NOFOLLOW | os.O_CLOEXEC))
    return None


def edited(
    assembler: Assembler, manifest: Manifest, old: Version, path: str, expected: Expected
) -> os.stat_result | None:
    """Make the old version the new one, in the place of ``path``; None if it may not be touched, and then it is not.

    Raises as ``Assembler.write`` and ``replacing.place`` do.
    """
    if not old.spare or not _alone(old, path):
        return None
    written = assembler.edit(manifest, old, manifest.size // _FEW)
    if written is None:
        return None
    _flush(old.fd, written)
    return place(old.fd, old.spare, path, expected)


def _alone(old: Version, path: str) -> bool:
    """Whether the second name of a version is its only one, nobody else has it open, and it is whose ``path`` is.

    Nobody can come to have it open afterwards: they would have to know the name.
    """
    try:
        if fcntl.fcntl(old.fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            return False
        mine, theirs, named = os.fstat(old.fd), os.lstat(path), os.lstat(old.spare)
        if not os.path.samestat(named, mine) or mine.st_nlink != 1:
            return False
        if (mine.st_uid, mine.st_gid) != (theirs.st_uid, theirs.st_gid):
            return False
        # A lease to write is granted to who is alone with a file, over all processes and their mappings: fcntl(2).
        fcntl.fcntl(old.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(old.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (OSError, AttributeError):  # a file system, or a system, that knows no leases
        return False
    return old.unchanged()


def _flush(fd: int, ranges: Iterable[tuple[int, int]]) -> None:
    """Have these bytes (offset, size) of a file on the disk.

    A power cut that took them back, and not the file's name and time, would leave a mix of two versions that looks
    right to git; a new file that it takes is too short, which everybody sees.
    """
    import ctypes  # 10 ms that only an edit pays

    sync = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    for offset, size in ranges:
        if sync is None or sync(fd, ctypes.c_int64(offset), ctypes.c_int64(size), _NOW):
            os.fdatasync(fd)
            return

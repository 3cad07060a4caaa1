"""Replace: a file of the worktree gives way to another under the same name, whole or not at all.

The new file has no name until it is complete, so that a killed process leaves nothing behind; then the two change
places in one step, and what came out is looked at before it goes.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from ..errors import ThetaError

_SETTLED = 10_000_000_000  # ns: a file this much older than the index is not looked at again by the next git status
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h; renameat2(2)
_SELF = "/proc/self/fd"

Expected = Callable[[str], bool]  # whether the file of that name, which is to go, is the one that was looked at


def replace(path: str, write: Callable[[int], None], expected: Expected) -> os.stat_result:
    """Replace ``path`` by what ``write`` puts into a new file, with the same mode; returns the new file's state.

    Raises ``ThetaError`` if the old file is no longer the expected one: it stays then, as it does if ``write`` fails.
    """
    temporary = _beside(path)
    fd, has_name = _create(temporary)
    try:
        write(fd)
        if not has_name:
            _name(fd, temporary)
        return place(fd, temporary, path, expected)
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):  # only a killed process leaves it
            os.unlink(temporary)


def named(fd: int, path: str, expected: Expected) -> os.stat_result | None:
    """Let a finished file without a name stand in the place of ``path``; None where it cannot have one there."""
    temporary = _beside(path)
    try:
        _name(fd, temporary)
    except OSError:  # it has a name, or had one, or is on another disk
        return None
    try:
        return place(fd, temporary, path, expected)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def place(fd: int, temporary: str, path: str, expected: Expected) -> os.stat_result:
    """Let a finished file that is called ``temporary`` stand in the place of ``path``, with the same mode, as above."""
    os.fchmod(fd, stat.S_IMODE(os.lstat(path).st_mode))
    now = time.time_ns()
    os.utime(fd, ns=(now, now - _SETTLED))
    _swap(temporary, path, expected)
    return os.fstat(fd)


@contextmanager
def lingering(paths: Iterable[str]) -> Iterator[None]:
    """Let files outlive the loss of their names until the end: else whoever takes the names waits for their memory."""
    fds = []
    try:
        for path in paths:
            with suppress(OSError):
                fds.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        yield
    finally:
        for fd in fds:
            close_aside(fd)


def close_aside(fd: int) -> None:
    """Close a file in a thread: if its name is gone, the kernel takes 0.1 s to free the memory of a gigabyte."""
    Thread(target=os.close, args=(fd,)).start()


def nameless(directory: str) -> int | None:
    """A new file for reading and writing that can be given a name; None where there is no such thing."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir(_SELF):
        with suppress(OSError):  # not every file system has files without a name
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    return None


def _beside(path: str) -> str:
    """A name that nobody else has, in the same folder."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name[:200]}.{os.urandom(8).hex()}.theta")


def _name(fd: int, path: str) -> None:
    os.link(f"{_SELF}/{fd}", path, src_dir_fd=fd)  # with it, a symbolic link is followed: linkat(2)


def _create(temporary: str) -> tuple[int, bool]:
    """A new file for reading and writing, and whether it has a name already."""
    if (fd := nameless(os.path.dirname(temporary))) is not None:
        return fd, False
    return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), True


def _swap(temporary: str, path: str, expected: Expected) -> None:
    """Put the temporary file in the place of the expected one."""
    if not expected(path):
        raise ThetaError("it changed in the meantime: it is left as it is")
    if not _exchange(temporary, path):
        os.replace(temporary, path)
    elif not expected(temporary):  # it changed after the first look
        _exchange(temporary, path)
        raise ThetaError("it changed in the meantime: it is left as it is")


def _exchange(one: str, other: str) -> bool:
    """Let two files change places; whether this system can.

    ext4 does not start to write a new file to disk for it, as it does when one is renamed over another: 0.4 s per GiB.
    """
    import ctypes  # 10 ms that nobody pays who writes no file

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0

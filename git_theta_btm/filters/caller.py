"""Whether git, which started this process, is reading a certain file.

The path that git passes to a filter need not be the file it feeds: ``git hash-object --path`` and ``git merge -X
renormalize`` name one and feed another. While git feeds a file it holds it open or mapped, which /proc shows.
Without /proc the answer is no, which is always safe.
"""

from __future__ import annotations

import os

_GENERATIONS = 3  # git itself, or a shell that git started and that started us, or a launcher between


def holds_open(file: os.stat_result) -> bool:
    """Whether the git that led to this process has ``file`` open (above its standard streams) or mapped.

    What git's own caller has open says nothing: a training program may keep a checkpoint mapped while it runs git.
    """
    pid = os.getppid()
    try:
        for _ in range(_GENERATIONS):
            if _name(pid) == "git":
                return _mapped(pid, file) or (_open(pid, file) and not _inherited(pid, file))
            pid = _parent(pid)
    except OSError:  # no /proc, or not ours to read
        pass
    return False


def _open(pid: int, file: os.stat_result) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        if int(name) <= 2:  # a standard stream may be the same file at another position
            continue
        try:
            held = os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue  # closed in the meantime
        if (held.st_dev, held.st_ino) == (file.st_dev, file.st_ino):
            return True
    return False


def _inherited(pid: int, file: os.stat_result) -> bool:
    """Whether a process may have ``file`` open only because its parent has."""
    try:
        return _open(_parent(pid), file)
    except OSError:  # another user's, or outside the container: such starters pass nothing on
        return False


def _mapped(pid: int, file: os.stat_result) -> bool:
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
        return any(line.split(None, 5)[3:5] == [device, str(file.st_ino)] for line in maps)


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as comm:
        return comm.read().rstrip("\n")


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])

"""The only module that runs git."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType

from .errors import ThetaError

_DRAIN = 1 << 20  # bytes that are read and dropped before a new child is cheaper: it takes about 2 ms to start
_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}

# As git rev-parse --local-env-vars lists them: they tie git to one repository.
_LOCAL = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR",
    "GIT_INTERNAL_SUPER_PREFIX",
}  # fmt: skip


class Git:
    """git in one directory. Arguments never pass through a shell; file names travel NUL-terminated."""

    def __init__(self, directory: str = ".", environment: Mapping[str, str] | None = None) -> None:
        """``environment`` is added to this process's own."""
        self.directory = directory
        self.environment = {**os.environ, **environment} if environment else None

    @classmethod
    def elsewhere(cls, directory: str) -> Git:
        """git in another repository than the one that a filter or a hook was started in."""
        git = cls(directory)
        git.environment = {name: value for name, value in os.environ.items() if name not in _LOCAL}
        return git

    def run(
        self, *arguments: str, stdin: bytes = b"", check: bool = True, progress: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git to its end. Raises ``ThetaError`` with git's own words if it fails and ``check`` is set.

        With ``progress`` all that git says goes to standard error as it is said, if that is a terminal.
        """
        out = sys.stderr.fileno() if progress and sys.stderr.isatty() else subprocess.PIPE
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.directory,
                env=self.environment,
                input=stdin,
                stdout=out,
                stderr=out,
                check=False,
            )
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_started() from None
        if check and done.returncode:
            raise ThetaError(
                _words(done.stderr or b"") or f"git {arguments[0]} failed with exit code {done.returncode}"
            )
        return done

    def attached(self, *arguments: str) -> int:
        """Run git on this process's own input, output and terminal, as if the user had; returns its exit code."""
        try:
            return subprocess.run(["git", *arguments], cwd=self.directory, env=self.environment, check=False).returncode
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_started() from None

    def _not_started(self) -> ThetaError:
        if not os.path.isdir(self.directory):
            return ThetaError(f"there is no directory {self.directory!r}")
        return ThetaError("git is not installed, or not on PATH")

    def configured(self, key: str, default: str = "", *, kind: str = "") -> str:
        """The value of a key of the configuration; ``kind`` is one of git's types, such as ``bool`` or ``path``."""
        typed = [f"--type={kind}"] if kind else []
        found = self.fields("config", "-z", *typed, "--get", key, check=False)
        return found[0] if found else default

    def waits_for_disk(self) -> bool:
        """Whether git is configured to have its loose objects on the disk before it goes on: ``core.fsync``."""
        waits = self.configured("core.fsyncObjectFiles", "false", kind="bool") == "true"
        for word in self.configured("core.fsync").replace(",", " ").split():
            if word.lstrip("-") in ("loose-object", "objects", "committed", "added", "all"):
                waits = not word.startswith("-")
            elif word == "none":
                waits = False
        return waits

    def with_environment(self, **environment: str) -> Git:
        """The same with more in the environment."""
        git = Git(self.directory)
        git.environment = {**(self.environment or os.environ), **environment}
        return git

    def text(self, *arguments: str) -> str:
        """git's output as one string, without its last newline."""
        return os.fsdecode(self.run(*arguments).stdout).removesuffix("\n")

    def fields(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> list[str]:
        """git's NUL-terminated output, one string for each field."""
        output = self.run(*arguments, stdin=stdin, check=check).stdout
        return os.fsdecode(output).removesuffix("\0").split("\0") if output else []

    def may_name_branch(self, name: str) -> bool:
        """Whether a branch can have this name: not ``HEAD``, ``-x`` or ``a..b``, nor ``@{-1}``, which is another's."""
        answer = self.run("check-ref-format", "--branch", name, check=False)
        return os.fsdecode(answer.stdout) == name + "\n"

    def oid(self, name: str) -> str:
        """The object of this name, such as ``HEAD`` or ``REV:PATH``; empty if there is none."""
        found = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", name, check=False)
        return found.stdout.decode().strip()

    def tree(self, revision: str) -> str:
        """The tree of a revision; empty if there is no such revision."""
        return self.oid(revision + "^{tree}")

    def contains(self, head: str, commit: str) -> bool:
        """Whether a commit is ``head``, or in its history."""
        return not self.run("merge-base", "--is-ancestor", commit, head, check=False).returncode

    def version(self) -> tuple[int, ...]:
        """git's version as numbers, ``(2, 39, 5)``."""
        return tuple(map(int, re.findall(r"\d+", self.text("version"))[:3]))

    def blobs(self) -> BlobReader:
        """A reader of this repository's objects, to be used as a context manager."""
        return BlobReader(self)

    def blob(self, name: str) -> bytes:
        """One blob, as ``HEAD:./path`` or ``:./path`` names it; empty if there is none."""
        return self.run("cat-file", "blob", name, check=False).stdout


class BlobReader:
    """Objects by name through one ``git cat-file --batch`` child: 0.1 ms each, where a process each takes 2 ms."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next ``read`` starts another."""
        if self._child:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def read(self, name: str, *, start: bytes = b"", limit: int = 1 << 62) -> bytes | None:
        """At most ``limit`` bytes of an object; None if it is missing or does not begin with ``start``.

        Only as much as is needed is held in memory. Raises ``ThetaError`` if git ends.
        """
        header = self._ask(name).split()
        if len(header) != 3:  # "<name> missing", "<name> ambiguous"
            return None
        size = int(header[2])
        data = self._take(min(size, len(start)))
        if data == start:
            data += self._take(min(size, limit) - len(data))
        self._drop(size - len(data) + 1)  # a newline follows
        return data if data.startswith(start) else None

    def _ask(self, name: str) -> bytes:
        if not self._child:
            self._child = subprocess.Popen(
                ["git", "cat-file", "--batch"],
                cwd=self._git.directory,
                env=self._git.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self._child.stdin and self._child.stdout
        try:
            self._child.stdin.write(os.fsencode(name) + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise ThetaError("git cat-file ended early: run 'git fsck'") from None
        header = self._child.stdout.readline()
        if not header:
            raise ThetaError("git cat-file ended early: run 'git fsck'")
        return header

    def _take(self, size: int) -> bytes:
        assert self._child and self._child.stdout
        data = self._child.stdout.read(size)
        if len(data) != size:
            raise ThetaError("git cat-file ended early: run 'git fsck'")
        return data

    def _drop(self, size: int) -> None:
        if size > _DRAIN:
            self.close()
        else:
            self._take(size)


def quote(name: str) -> str:
    """A file name as git spells it in quotes: what is not printable ASCII as an octal escape."""
    codes = os.fsencode(name)
    return '"' + "".join(_ESCAPES.get(c) or (chr(c) if 32 <= c < 127 else f"\\{c:03o}") for c in codes) + '"'


def _words(stderr: bytes) -> str:
    """All that git said, on one line, without its list of options; or what our filter did, if git failed of that."""
    said = stderr.decode(errors="replace").partition("\nusage:")[0]
    lines = said.splitlines()
    ours = [line.removeprefix("theta: ") for line in lines if line.startswith("theta: ")]
    if ours and "'theta'" in lines[-1]:  # PATH: clean filter 'theta' failed
        return ours[-1]
    return " ".join(said.removeprefix("fatal: ").removeprefix("error: ").split())

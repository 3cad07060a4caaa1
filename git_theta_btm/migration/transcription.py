"""Transcription: attributes files for other filters, and what they then mean, which only git can tell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from ..git import Git
from ..repository import attributes
from ..setup.attributes import FILE, add, literal, patterns_in, spell

_WORD = rb"(?<=[ \t])%s(?=[ \t\r\n]|$)"
_FROM_LFS = ((_WORD % b"filter=lfs", b"filter=theta"), (_WORD % b"merge=lfs", b"merge=theta"))
_TO_LFS = ((_WORD % b"filter=theta", b"filter=lfs diff=lfs"), (_WORD % b"merge=theta", b"merge=lfs"))
_DIFF = rb"[ \t]+diff=lfs(?=[ \t\r\n]|$)"


@dataclass(frozen=True, slots=True)
class Goal:
    """The filter that files are to have, or must not have, and the line that gives it to one of them."""

    allowed: frozenset[str] | None
    forbidden: frozenset[str]
    words: str

    def met(self, value: str, *, inherited: bool) -> bool:
        if value == "unspecified" and inherited:
            return True
        return value in self.allowed if self.allowed is not None else value not in self.forbidden


THETA = Goal(frozenset({"theta"}), frozenset(), "filter=theta merge=theta -text")
LFS = Goal(frozenset({"lfs"}), frozenset(), "filter=lfs diff=lfs merge=lfs -text")
PLAIN = Goal(None, frozenset({"theta", "lfs"}), "-filter -merge -diff")


def from_lfs(content: bytes, patterns: Iterable[str]) -> bytes:
    """The file with our filter in those lines that give git-lfs's to one of the patterns."""
    wanted = {key for pattern in patterns for key in patterns_in(add(b"", [pattern]))}
    lines = ((line, _replaced(line, _FROM_LFS)) for line in content.splitlines(keepends=True))
    # Only the new line shows its pattern: that of a line with another filter is nobody's business but git's.
    return b"".join(
        re.sub(_DIFF, b"", new) if new != line and wanted.issuperset(patterns_in(new)) and patterns_in(new) else line
        for line, new in lines
    )


def to_lfs(content: bytes) -> bytes:
    """The file with git-lfs's filter in each line that gives ours."""
    return b"".join(
        _replaced(line, _TO_LFS) if patterns_in(line) else line for line in content.splitlines(keepends=True)
    )


def _replaced(line: bytes, table: Iterable[tuple[bytes, bytes]]) -> bytes:
    for word, new in table:
        line = re.sub(word, new, line)
    return line


class Probe:
    """An empty repository, in which git is asked what attributes mean."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._settled: dict[tuple[bytes, bool, tuple[str, ...], str], bytes] = {}

    def settle(self, content: bytes, directory: str, models: Sequence[str], goal: Goal) -> bytes:
        """The attributes file of a directory, with a line for each model whose filter would be the wrong one.

        A directory's own file need not say anything: the root's does.
        """
        if directory and not content:
            return content
        key = (content, bool(directory), tuple(models), goal.words)
        if key not in self._settled:
            values = self._ask(content, "filter", models)
            wrong = [model for model in models if not goal.met(values[model], inherited=bool(directory))]
            self._settled[key] = _with_lines(content, [f"{spell('/' + literal(path))} {goal.words}" for path in wrong])
        return self._settled[key]

    def matching(self, patterns: Iterable[str], paths: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """The paths that each pattern matches."""
        found = {}
        for pattern in patterns:
            content = f"{spell(pattern)} probe\n".encode(errors="surrogateescape")
            values = self._ask(content, "probe", paths)
            found[pattern] = frozenset(path for path in paths if values[path] == "set")
        return found

    def _ask(self, content: bytes, name: str, paths: Sequence[str]) -> Mapping[str, str]:
        with open(os.path.join(self._git.directory, FILE), "wb") as file:
            file.write(content)
        return {path: values[name] for path, values in attributes(self._git, paths, name).items()}


def _with_lines(content: bytes, lines: Sequence[str]) -> bytes:
    """The lines at the end, where they outweigh all others; a file without a last newline stays without one."""
    if not lines:
        return content
    text = "\n".join(lines).encode(errors="surrogateescape")
    return content + b"\n" + text if content and not content.endswith(b"\n") else content + text + b"\n"


@contextmanager
def probing() -> Iterator[Probe]:
    """A probe that knows nothing of the user's own attributes."""
    with TemporaryDirectory() as directory:
        git = Git.elsewhere(directory)
        git.run("init", "--quiet", "--template=")
        git.run("config", "core.attributesFile", os.devnull)
        yield Probe(git)

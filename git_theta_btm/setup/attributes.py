"""``.gitattributes``: which files git hands to the filters. Every byte that is not about them stays as it is.

Specification: gitattributes(5). A pattern is relative to the directory of its file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from ..errors import UsageError
from ..git import Git, quote
from ..repository import Repository

FILE = ".gitattributes"
ATTRIBUTES = ("filter=theta", "merge=theta", "-text")
_GIT_FILES = (FILE, ".gitignore", ".gitmodules")  # git reads these itself, and never through a filter
_SPACE = "[[:space:]]"  # an attributes line ends its pattern at the first blank
_LINE = re.compile(rb'[ \t]*("(?:[^"\\]|\\.)*"|[^ \t\r\n]+)[ \t]*([^\r\n]*)')
_OCTAL = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_NAMED = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}


@dataclass(frozen=True, slots=True)
class Tracked:
    """A pattern and the attributes file, by its path from the root of the worktree, that it stands in."""

    pattern: str
    file: str


# -- the text of one file --------------------------------------------------------------------------------------------


def add(content: bytes, patterns: Iterable[str]) -> bytes:
    """The file with a line for each pattern that has none, in its own style of line endings."""
    for pattern in patterns:
        if not _has(content, pattern):
            end = b"\r\n" if b"\r\n" in content else b"\n"
            line = " ".join((spell(pattern), *ATTRIBUTES)).encode(errors="surrogateescape")
            bare = content and not content.endswith(b"\n")  # stays so: what is added can be taken away exactly
            content += end + line if bare else line + end
    return content


def remove(content: bytes, patterns: Iterable[str]) -> bytes:
    """The file without the lines that ``add`` writes for these patterns."""
    gone = {_key(pattern) for pattern in patterns}
    lines = content.splitlines(keepends=True)
    kept = b"".join(line for line in lines if not (_is_theta(line) and _plain(_pattern(line)) in gone))
    ended = not content or content.endswith(b"\n")
    return kept if ended or not lines or kept.endswith(lines[-1]) else kept.removesuffix(b"\n").removesuffix(b"\r")


def patterns_in(content: bytes) -> list[str]:
    """The patterns with the filter, in order, spaces as spaces."""
    return [_plain(_pattern(line)) for line in content.splitlines() if _is_theta(line)]


def spell(pattern: str) -> str:
    """A pattern as one word of an attributes line."""
    if not pattern.isprintable() or pattern.startswith('"'):
        return quote(pattern)
    pattern = "\\" + pattern if pattern.startswith(("#", "!")) else pattern
    return pattern.replace(" ", _SPACE)


def literal(name: str) -> str:
    """The pattern that matches this file name and no other."""
    return re.sub(r"([*?\[\\])", r"\\\1", name)


def _has(content: bytes, pattern: str) -> bool:
    """Whether the last line that sets a filter for this very pattern is one of ours, and complete."""
    wanted = _key(pattern)
    lines = [line for line in content.splitlines() if _plain(_pattern(line)) == wanted]
    deciding = [words for words in map(_attributes, lines) if any("filter" in word for word in words)]
    return bool(deciding) and set(ATTRIBUTES) <= set(deciding[-1])


def _is_theta(line: bytes) -> bool:
    return "filter=theta" in _attributes(line)


def _pattern(line: bytes) -> str:
    """The line's pattern, unquoted; empty for a comment, a macro and a blank line."""
    match = _LINE.match(line)
    if not match or match[1].startswith((b"#", b"[attr]")):
        return ""
    word = match[1]
    if word.startswith(b'"'):
        word = _OCTAL.sub(_unescape, word[1:-1])
    return word.decode(errors="surrogateescape")


def _attributes(line: bytes) -> list[str]:
    match = _LINE.match(line)
    return match[2].decode(errors="surrogateescape").split() if match and _pattern(line) else []


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes([int(code, 8) & 255]) if code.isdigit() and len(code) == 3 else _NAMED.get(code, code)


def _key(pattern: str) -> str:
    """A pattern as it will be read again, to compare it with others."""
    return _plain(_pattern(spell(pattern).encode(errors="surrogateescape")))


def _plain(pattern: str) -> str:
    return pattern.replace(_SPACE, " ")


# -- the files of a worktree -----------------------------------------------------------------------------------------


def track(repository: Repository, patterns: Sequence[str]) -> bool:
    """Add lines for patterns to the file of the user's directory; whether anything was new.

    Raises ``UsageError`` for a pattern that cannot work or would catch git's own files.
    """
    path = _file(repository)
    patterns = [_checked(pattern.removeprefix("./"), repository) for pattern in patterns]
    _refuse_git_files(repository.here, patterns)
    before = _content(path)
    return _write(path, before, add(before, patterns))


def untrack(repository: Repository, patterns: Sequence[str]) -> bool:
    """Remove the lines of patterns from the file of the user's directory; whether there were any."""
    path = _file(repository)
    before = _content(path)
    return _write(path, before, remove(before, [pattern.removeprefix("./") for pattern in patterns]))


def tracked(repository: Repository) -> Iterator[Tracked]:
    """All patterns with the filter in the worktree's attributes files. Raises ``ThetaError`` in a bare repository."""
    repository.worktree()
    names = repository.git.fields("ls-files", "-z", "-c", "-o", "--exclude-standard", "--", f":(glob)**/{FILE}")
    for name in dict.fromkeys(names):
        for pattern in patterns_in(_content(repository.absolute(name))):
            yield Tracked(pattern, name)


def _file(repository: Repository) -> str:
    """The attributes file of the user's directory, which must lie in the worktree."""
    repository.worktree()
    return os.path.realpath(os.path.join(repository.here.directory, FILE))


def _checked(pattern: str, repository: Repository) -> str:
    if not pattern or "\0" in pattern:
        raise UsageError("a pattern must not be empty")
    if ".." in pattern.split("/") or (os.path.isabs(pattern) and os.path.lexists(pattern)):
        raise UsageError(f"{pattern!r}: a pattern is relative to the directory of its {FILE}; go there first")
    if pattern.endswith("/") or os.path.isdir(os.path.join(repository.here.directory, pattern)):
        raise UsageError(f"{pattern!r} is a directory, which attributes never match: track '{pattern.rstrip('/')}/**'")
    return pattern


def _refuse_git_files(git: Git, patterns: Sequence[str]) -> None:
    """Ask git itself which of its own files each pattern would match, by an attribute that nothing else sets."""
    with TemporaryDirectory() as directory:
        path = os.path.join(directory, "attributes")
        for pattern in patterns:
            with open(path, "wb") as file:
                file.write(f"{spell(pattern)} theta-probe\n".encode(errors="surrogateescape"))
            option = f"core.attributesFile={path}"
            fields = git.fields("-c", option, "check-attr", "-z", "theta-probe", "--", *_GIT_FILES)
            for name, _, value in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
                if value == "set":
                    raise UsageError(f"{pattern!r} would match {name} itself: choose a narrower pattern")


def _content(path: str) -> bytes:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""


def _write(path: str, before: bytes, after: bytes) -> bool:
    """Replace the file in one step, with the same mode; an empty one goes."""
    if before == after:
        return False
    if not after:
        os.unlink(path)
        return True
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "xb") as file:
        file.write(after)
    with suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
    os.replace(temporary, path)
    return True


def touch_plain(repository: Repository) -> list[str]:
    """The files with the filter that git holds as they are; their times change, so that git looks at them again."""
    with repository.git.blobs() as blobs:
        plain = [
            model.path
            for model in repository.models()
            if model.text is None and blobs.read(model.oid, limit=1)  # an empty file stays one
        ]
    for path in plain:
        with suppress(OSError):  # it may not be in the worktree
            os.utime(repository.absolute(path), follow_symlinks=False)
    return plain

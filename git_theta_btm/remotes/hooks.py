"""The hooks: a marked block in the file that git runs, or git's configuration where git has hooks there.

What others have put into the file stays and still runs, with the same standard input. Specification: githooks(5).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ..git import Git
from ..source import write_all


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook by git's name for it, and the section of the configuration where git has hooks there."""

    name: str
    section: str


PUSH = Hook("pre-push", "hook.theta")
MESSAGE = Hook("prepare-commit-msg", "hook.theta-message")
NAME = PUSH.name
CONFIGURED = (2, 54)  # git that runs hooks which its configuration names, beside the file
_BEGIN, _END = "# >>> git-theta >>>", "# <<< git-theta <<<"
_BLOCK = re.compile(rf"^{_BEGIN}\n.*?^{_END}\n", re.MULTILINE | re.DOTALL)
_SHELL = re.compile(r"#!\s*(/usr)?/bin/(env\s+)?(ba|da|z|k|a)?sh(\s|$)")
_LONGEST = 1 << 20  # characters: what is longer was not written by hand, nor by a tool of this kind
State = Literal["installed", "missing", "outdated", "foreign"]


def state(git: Git, hook: Hook = PUSH) -> State:
    """Whether the hook of a repository is ours; ``foreign`` if it is a program that no block can be put into."""
    if git.version() >= CONFIGURED:
        present = [git.configured(f"{hook.section}.{key}") for key in ("event", "command")]
        return "installed" if present == [hook.name, _command(git, hook)] else "outdated" if any(present) else "missing"
    file = path(git, hook)
    text = _read(file)
    if _BEGIN in (_read(f"{file}.legacy") or ""):  # pre-commit(1) moved it there, and runs it first
        return "installed"
    if text is None or (text and not _is_script(file, text)):
        return "foreign"
    if _BEGIN not in text:
        return "missing"
    return "installed" if text == _with_block(git, hook, text) else "outdated"


def needed(git: Git, store: str, *, bare: bool) -> bool:
    """Whether there is something that a push must bring along: objects in the store, or a bare repository's branches
    with files that have the filter, which a plain ``git clone --mirror`` brings without their objects."""
    if os.path.isdir(store) or not bare:
        return os.path.isdir(store)
    listed = git.run("rev-list", "--objects", "--no-walk", "--all", check=False).stdout.decode(errors="replace")
    rows = [row.partition(" ") for row in listed.split("\n")]
    with git.blobs() as reader:
        files = (reader.read(oid, limit=_LONGEST) for oid, _, path in rows if path.split("/")[-1] == ".gitattributes")
        return any(b"filter=theta" in (text or b"") for text in files)


def install(git: Git) -> State:
    """Put the hooks in place and say what the one that guards a push was before; ``foreign`` ones stay as they are.

    Without the other one a plain ``git merge`` does not say in its commit how the models were merged.
    """
    _install(git, MESSAGE)
    return _install(git, PUSH)


def _install(git: Git, hook: Hook) -> State:
    before = state(git, hook)
    if before in ("installed", "foreign"):
        return before
    if git.version() >= CONFIGURED:
        for key, value in (("event", hook.name), ("command", _command(git, hook))):
            git.run("config", "--local", "--replace-all", f"{hook.section}.{key}", value)
    else:
        _write(path(git, hook), _with_block(git, hook, _read(path(git, hook)) or ""))
    return before


def uninstall(git: Git) -> None:
    """Take the hooks out; a file in which nothing else stands is removed."""
    for hook in (PUSH, MESSAGE):
        git.run("config", "--local", "--remove-section", hook.section, check=False)
        file = path(git, hook)
        text = _read(file)
        if text and _BEGIN in text:
            rest = _BLOCK.sub("", text)
            if rest.strip() in ("", "#!/bin/sh"):
                os.unlink(file)
            else:
                _write(file, rest)


def path(git: Git, hook: Hook = PUSH) -> str:
    """The file that git runs, wherever ``core.hooksPath`` has it."""
    return os.path.abspath(os.path.join(git.directory, git.text("rev-parse", "--git-path", f"hooks/{hook.name}")))


def remedy(git: Git, hook: Hook = PUSH) -> str:
    """What to add to a hook that is not a shell script."""
    stdin = ", with its standard input" if hook is PUSH else ""
    return f'let {path(git, hook)} run: git theta {hook.name} "$@"{stdin}'


def _is_script(file: str, text: str) -> bool:
    """Whether a block can be put into a hook, and does not set something going that git has left alone."""
    return bool(_SHELL.match(text)) and os.access(file, os.X_OK) and not os.path.islink(file)


def _with_block(git: Git, hook: Hook, text: str) -> str:
    first, newline, rest = (_BLOCK.sub("", text) or "#!/bin/sh\n").partition("\n")
    if hook is MESSAGE:
        block = _message_block(_command(git, hook))
    else:
        lfs = "" if re.search("git[ -]lfs pre-push", rest) else " --lfs"
        block = _push_block(_command(git, hook) + lfs)
    return f"{first}{newline or os.linesep}{block}{rest}"


def _push_block(command: str) -> str:
    return f"""{_BEGIN}
# Objects go to the remote before the commits that need them. What follows has the same standard input.
theta_refs=$(cat)
printf '%s\\n' "$theta_refs" | {command} "$@" || exit
if [ -n "$theta_refs" ]; then
exec <<theta_end
$theta_refs
theta_end
else
exec </dev/null
fi
{_END}
"""


def _message_block(command: str) -> str:
    return f"""{_BEGIN}
# How models were merged goes into the message. There is nothing to do, and no time lost, unless they were.
if [ -f "$(git rev-parse --git-path THETA_MERGE)" ]; then
{command} "$@" || exit
fi
{_END}
"""


def _command(git: Git, hook: Hook) -> str:
    """What is to run: by its full path, as the shells of editors have no virtual environment on their PATH; but by
    name alone where others may share the file."""
    common = os.path.realpath(os.path.join(git.directory, git.text("rev-parse", "--git-common-dir")))
    beside = os.path.join(os.path.dirname(sys.executable), "git-theta")
    found = beside if os.access(beside, os.X_OK) else shutil.which("git-theta")
    inside = os.path.realpath(path(git, hook)).startswith(os.path.join(common, ""))
    return f"{shlex.quote(os.path.abspath(found))} {hook.name}" if found and inside else f"git theta {hook.name}"


def _read(file: str) -> str | None:
    """The hook's text, empty if there is none; None for what is no text."""
    try:
        with open(file, encoding="utf-8") as hook:
            text = hook.read(_LONGEST + 1)
            return text if len(text) <= _LONGEST else None
    except FileNotFoundError:
        return ""
    except (UnicodeDecodeError, OSError):
        return None


def _write(file: str, text: str) -> None:
    """Replace the hook as a whole: a push may be running it."""
    os.makedirs(os.path.dirname(file), exist_ok=True)
    mode = 0o755
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(file).st_mode) | stat.S_IXUSR  # an empty one may have been there
    temporary = f"{file}.{os.urandom(8).hex()}.theta"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        write_all(fd, text.encode())
        os.replace(temporary, file)
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(temporary)

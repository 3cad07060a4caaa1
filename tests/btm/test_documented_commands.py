"""Every command line in the documents, and in the help of commands, is one that the commands themselves take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from git_theta_btm.btm.cli import btm
from git_theta_btm.cli import theta

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS: dict[str, click.Group] = {"theta": theta, "btm": btm}
_LINE = re.compile(r"\bgit (theta|btm)(?= |$)")
_ENDS = {"&&", "||", ";", "|", ">", "<", "&", "done"}  # where a shell's line goes on with something else


def blocks(text: str) -> Iterator[str]:
    """The command lines in the blocks of shell, each whole."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            yield from commands(line)


def quoted(text: str) -> Iterator[str]:
    """The command lines within sentences, which may leave arguments out."""
    for words in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        yield from commands(" ".join(words.split()))


def commands(line: str) -> Iterator[str]:
    """Each ``git theta`` and ``git btm`` of a line of shell, without comments and without what is not its own."""
    if not _LINE.search(line):
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for place, pair in enumerate(zip(words, words[1:], strict=False)):
        if pair[0] == "git" and pair[1] in PROGRAMS:
            rest = words[place:]
            end = next((number for number, word in enumerate(rest) if word in _ENDS), len(rest))
            yield shlex.join(rest[:end])


def examples(command: click.Command) -> Iterator[str]:
    """The command lines in the help of a command and of those below it."""
    for line in (command.help or "").splitlines():
        if _LINE.match(line.strip()):
            yield from commands(line.strip().split("   ")[0])
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below
            yield from examples(below)


def parse(line: str, *, partly: bool = False) -> None:
    """Let click read a command line, and run nothing. Raises ``click.UsageError``."""
    _, program, *words = shlex.split(line)
    command: click.Command = PROGRAMS[program]
    context = click.Context(command, info_name=f"git {program}")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0].isupper():  # any of its commands
            return
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"no command {words[0]!r}", context)
        command, words = found, words[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    try:
        command.make_context(command.name, list(words), parent=context.parent)
    except click.exceptions.Exit:  # --help, --version
        pass
    except (click.MissingParameter, click.BadOptionUsage):
        if not partly:
            raise
    except click.BadParameter as error:
        kind = error.param.type if error.param else None
        if not (isinstance(kind, click.Path) and kind.exists):  # of a file that only its reader has
            raise


def wrong(lines: Iterator[str], *, partly: bool = False) -> list[str]:
    """Those that do not parse, and why."""
    found = []
    for line in lines:
        try:
            parse(line, partly=partly)
        except click.UsageError as error:
            found.append(f"{line}: {error.format_message()}")
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_a_document(document: Path) -> None:
    text = document.read_text()
    assert wrong(blocks(text)) == []
    assert wrong(quoted(text), partly=True) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_examples_in_the_help(program: str) -> None:
    lines = list(examples(PROGRAMS[program]))
    assert len(lines) > 20
    assert wrong(iter(lines)) == []


def test_what_is_read_of_a_document() -> None:
    text = "`git btm eval\n--nope` and\n```sh\na=1; git theta fsck && git btm \\\n  prior x # git btm nope\n```\n"
    assert list(blocks(text)) == ["git theta fsck", "git btm prior x"]
    (found,) = wrong(quoted(text), partly=True)
    assert found.startswith("git btm eval --nope: No such option")
    words = ["git btm nope", "git btm data", "git btm ensemble generate law 'Whereas the'", "git btm average a.pt"]
    assert len(wrong(iter(words))) == len(words)

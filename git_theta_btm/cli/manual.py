"""Manual pages, from the commands' own help: ``python -m git_theta_btm.cli.manual > man/git-theta.1``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click

from .. import __version__
from . import NAME, theta

_DESCRIPTION = """
git-theta-btm teaches Git to version machine-learning checkpoints parameter by parameter. A file whose pattern is
tracked is split into its tensors when it is added; each is stored once, by the SHA-256 of its bytes, however many
versions, branches and files share it. Git itself holds a manifest: a text with one line for each parameter, which
git diff, git log -p and git blame show as it is. On checkout the file is put together again, byte for byte.

After git theta install (once for each user) and git theta track (once in each repository), git add, commit, switch,
diff, stash and the rest work as ever.
"""

_SECTIONS = {
    "EXIT STATUS": (
        ("0", "It worked."),
        ("1", "The answer is no: problems were found, or a stub is left."),
        ("128", "It failed; one line on standard error says why, and what to do."),
        ("129", "The command line makes no sense."),
    ),
    "ENVIRONMENT": (
        ("GIT_THETA_SKIP_SMUDGE", "If true, checkouts leave stubs in the place of models."),
        ("GIT_TRACE_THETA", "If true, an error ends with the trace of its cause."),
        ("NO_COLOR", "If set, nothing is coloured unless --color=always asks for it."),
    ),
    "CONFIGURATION": (
        ("filter.theta.clean, filter.theta.smudge, filter.theta.required", "The filters; git theta install sets them."),
        ("merge.theta.name, merge.theta.driver", "What git does where both sides changed a model."),
        ("merge.theta-ours.driver", "For files of which a merge keeps our side: merge=theta-ours in .gitattributes."),
        ("theta.merge.strategy, theta.merge.<strategy>.<option>", "How models are merged, unless something says more."),
        ("theta.fetch", "If false, a checkout fetches no objects: what lacks some is a stub. True by default."),
        ("theta.keepref", "If false, a push makes no refs below refs/theta/keep, which keep objects from cleaning up."),
        ("remote.<name>.thetakeepref", "The same for one remote; git theta sets it if a remote takes no such refs."),
        ("color.theta", "Whether to colour: true, false, always or auto; color.ui if it is not set."),
        ("color.theta.<state>", "The colour of a state that git theta status shows, such as color.theta.staged."),
    ),
    "FILES": (
        (".gitattributes", "Lines with filter=theta say which files are versioned by parameter."),
        ("$GIT_COMMON_DIR/theta/objects", "The objects, each by its SHA-256. Nothing else has them: do not delete."),
        ("$GIT_COMMON_DIR/theta/catalogue.sqlite3", "What is remembered from earlier runs: a cache."),
        ("$GIT_COMMON_DIR/theta/lfs", "Where git-lfs works on them. Nothing in it is needed later."),
        ("$GIT_COMMON_DIR/hooks/pre-push", "The hook that has a push bring objects along, or where core.hooksPath is."),
        ("$GIT_COMMON_DIR/theta/corrupt", "Where git theta fsck --fix moves objects whose bytes are wrong."),
    ),
}


@dataclass(frozen=True, slots=True)
class Manual:
    """What a page is made of beside the help of a group's commands: the name that users type, what stands beside it in
    one line, what it is for, sections of terms that are explained, and other pages."""

    name: str
    group: click.Group
    summary: str
    description: str
    sections: Mapping[str, Sequence[tuple[str, str]]]
    related: str

    def page(self) -> str:
        """The whole page in the man macros of troff."""
        return "\n".join(_page(self)) + "\n"


def _page(manual: Manual) -> Iterator[str]:
    program = manual.name.replace(" ", "-")
    commands = list(_commands(click.Context(manual.group, info_name=manual.name)))
    yield f'.TH {program.upper()} 1 "" "git-theta-btm {__version__}" "Git Manual"'
    yield ".SH NAME"
    yield _escape(f"{program} - {manual.summary}").replace(" \\- ", " \\- ", 1)
    yield ".SH SYNOPSIS"
    for context in commands:
        if not isinstance(context.command, click.Group):
            yield from (_bold(_usage(context)), ".br")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(manual.description)
    yield ".SH COMMANDS"
    for context in commands:
        yield from _describe(context)
    for title, items in manual.sections.items():
        yield f".SH {title}"
        for term, text in items:
            yield from (".TP", _bold(term), _escape(text))
    yield ".SH SEE ALSO"
    yield _escape(manual.related)


def _commands(parent: click.Context) -> Iterator[click.Context]:
    """The commands of a group, each followed by those that it has itself."""
    assert isinstance(parent.command, click.Group)
    for word in parent.command.list_commands(parent):
        command = parent.command.get_command(parent, word)
        assert command is not None
        # By its whole name and without its parent, whose own arguments would stand in between.
        context = click.Context(command, info_name=f"{parent.info_name} {word}")
        yield context
        if isinstance(command, click.Group):
            yield from _commands(context)


def _usage(context: click.Context) -> str:
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])


def _describe(context: click.Context) -> Iterator[str]:
    yield f".SS {_escape(_usage(context))}"
    yield from _paragraphs(inspect.cleandoc(context.command.help or ""))
    for parameter in context.command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record:
            yield from (".TP", _bold(record[0]), _escape(record[1]))


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs, of which one after a ``\\b`` keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield ".PP"
        if paragraph.startswith("\b"):
            yield ".nf"
            yield from map(_escape, paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield _escape(" ".join(paragraph.split()))


def _bold(text: str) -> str:
    return f"\\fB{_escape(text).removeprefix(chr(92) + '&')}\\fR"


def _escape(text: str) -> str:
    """Text in which troff finds nothing to obey."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


_MANUAL = Manual(
    NAME, theta, "version machine-learning models parameter by parameter", _DESCRIPTION, _SECTIONS,
    "git-btm(1), gitattributes(5), git-lfs(1)",
)  # fmt: skip

if __name__ == "__main__":
    sys.stdout.write(_MANUAL.page())

"""Clone: git clones with stubs for models, then the models are written out of band, or stay stubs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from ..git import Git
from ..remotes import hooks
from ..repository import Repository
from ..setup.install import effective, settings
from .switching import SKIP, STUBS
from .worktree import Means, Outcome, materialise

_SMUDGE = "filter.theta.smudge"


@dataclass(frozen=True, slots=True)
class Cloned:
    """git's exit code, and what became of the models; ``repository`` is None if it has no worktree."""

    code: int
    repository: Repository | None
    outcomes: list[Outcome]


def clone(arguments: Sequence[str], means: Callable[[Repository], Means], *, lazy: bool) -> Cloned:
    """Run ``git clone`` with these arguments, and write the models, unless the clone is to be ``lazy``.

    A lazy clone has a filter of its own in its configuration, which leaves stubs on every checkout. Where the
    filters are not installed for the user, they are installed in the clone. Raises ``ThetaError`` if git cannot be run.
    """
    with TemporaryDirectory(prefix="git-theta-") as directory:
        events = os.path.join(directory, "events")
        git = Git(environment={SKIP: "1", "GIT_TRACE2_EVENT": events})
        # Asked where there is no repository: that around the user's directory has no say in a clone.
        outside = Git.elsewhere(directory).with_environment(GIT_CEILING_DIRECTORIES=os.path.dirname(directory))
        code = git.attached(*STUBS, "clone", *_configuration(outside, lazy=lazy), *arguments)
        root = next(_worktrees(events), None)
    if code or root is None:
        return Cloned(code, None, [])
    repository = Repository(root)
    hooks.install(repository.git)
    models = [] if lazy else repository.models()
    return Cloned(code, repository, materialise(repository, models, means(repository)))


def _configuration(git: Git, *, lazy: bool) -> Iterator[str]:
    """The options by which git configures the clone before it checks out."""
    wanted = settings(skip_smudge=lazy)
    if effective(git):
        wanted = {_SMUDGE: wanted[_SMUDGE]} if lazy else {}
    for key, value in wanted.items():
        yield from ("--config", f"{key}={value}")


def _worktrees(events: str) -> Iterator[str]:
    """The worktrees that git set up, the first first, as it tells whoever traces it: api-trace2, ``def_repo``.

    Where a clone ends up follows from its arguments by rules that only git knows.
    """
    with suppress(FileNotFoundError), open(events, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            with suppress(ValueError, KeyError):
                event = json.loads(line)
                if event["event"] == "def_repo":
                    yield event["worktree"]

"""A callback for anybody's own ``transformers.Trainer``: each checkpoint that it saves becomes a commit.

    trainer = Trainer(..., callbacks=[ThetaCallback(branch="legal", domain="legal")])

No worktree and no index is changed, so the branch must not be checked out. Whoever imports this module uses
transformers already.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

from transformers import TrainerCallback

from ...errors import ThetaError
from ...repository import Repository
from .. import adapting
from ..experts import Checkpoint
from ..places import ADAPTER, MODEL, TRAINING
from .committing import Content, Line, commit_of, holder
from .records import latest, message
from .restoring import base_digests, bind, files

_WEIGHTS = (f"{MODEL}/model", f"{MODEL}/pytorch_model")  # what transformers calls them


class ThetaCallback(TrainerCallback):
    """Commits each checkpoint folder to a branch: the model in ``path``, the state of the training in ``training/``.

    The branch is called like the trainer's output folder unless one is named; a new one begins at HEAD. ``text`` is
    the title of the commits, in which ``{step}`` and ``{domain}`` are filled in. With ``optimizer=False`` the state of
    the training is left out. Files of tensors are tracked from the first commit on.

    Of a model of PEFT the adapter goes to ``adapter/``, bound to the model that ``path`` has when the training begins,
    which stays as it is.

    Raises ``ThetaError`` when the training begins if there is no repository, or the branch is checked out.
    """

    def __init__(  # noqa: PLR0913 - one for each option
        self,
        branch: str | None = None,
        path: str = MODEL,
        message: str = "step {step}",
        *,
        domain: str = "",
        optimizer: bool = True,
        repository: str = ".",
    ) -> None:
        self.branch, self.path, self.message = branch, path.strip("/"), message
        self.domain, self.optimizer = domain, optimizer
        self.last = ""  # the commit of the last checkpoint
        self._repository = Repository(repository)
        self._base: list[str] = []  # of an adapter
        self._losses: list[float] = []

    def _line(self, args: Any) -> Line:
        name = self.branch or os.path.basename(os.path.normpath(args.output_dir))
        ref = f"refs/heads/{name}"
        git = self._repository.git
        if not git.may_name_branch(name):
            raise ThetaError(f"{name!r} is no name for a branch")
        if where := holder(git, ref):
            raise ThetaError(f"branch {name} is checked out in {where}: name another one, or 'git switch' there first")
        return Line(self._repository, ref)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise ``ThetaError`` now rather than after hours."""
        if state.is_world_process_zero:
            line = self._line(args)
            self._base = base_digests(self._repository, line.tip() or commit_of(line.git, "HEAD"), self.path)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the loss."""
        if "loss" in kwargs["logs"]:
            self._losses.append(float(kwargs["logs"]["loss"]))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Commit what was saved."""
        if not state.is_world_process_zero:
            return
        line = self._line(args)
        folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        self._losses = []
        before = latest(line.git, line.tip() or "HEAD") if line.tip() or commit_of(line.git, "HEAD") else None
        seed = before.checkpoint.seed if before and before.checkpoint.domain == self.domain else None
        tokens = int(getattr(state, "num_input_tokens_seen", 0) or 0)
        checkpoint = Checkpoint(self.domain, state.global_step, tokens, seed, loss)
        title = self.message.format(step=state.global_step, domain=self.domain)
        with TemporaryDirectory() as directory:
            self.last = line.add(self._content(folder, directory), message(title, checkpoint))

    def _content(self, folder: str, directory: str) -> Content:
        found = files(folder, training=self.optimizer)
        if adapting.CONFIG in found and not any(path.startswith(_WEIGHTS) for path in found):
            return self._adapter(found, directory)
        moved = {self._place(path): file for path, file in found.items()}
        return Content(moved, (self.path, ADAPTER, TRAINING), track=True)

    def _adapter(self, found: Mapping[str, str], directory: str) -> Content:
        """An adapter, its configuration written anew in a directory: the trainer's own is left alone."""
        own = {path: file for path, file in found.items() if not path.startswith(f"{MODEL}/")}
        if self._base:
            own[adapting.CONFIG] = os.path.join(directory, os.path.basename(adapting.CONFIG))
            bind(found[adapting.CONFIG], self._base, own[adapting.CONFIG])
        return Content(own, (ADAPTER, TRAINING), track=True)

    def _place(self, path: str) -> str:
        inside, _, rest = path.partition("/")
        return f"{self.path}/{rest}" if inside == MODEL else path

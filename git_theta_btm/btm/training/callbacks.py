"""Between updates: a mean of the loss is kept, checkpoints are committed, and the run ends where it should.

Nothing imports this module before a training starts.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import TrainerCallback

from ...repository import Repository
from ..data.tokens import load
from ..evaluating.losses import log_probs
from ..experts import Checkpoint
from .requests import Request
from .restoring import base_digests, bind
from .saver import Saver
from .starting import Start


class Keeper(TrainerCallback):
    """Commits what the trainer saves, in the first of several processes."""

    def __init__(self, repository: Repository, request: Request, start: Start, saver: Saver | None) -> None:
        self._repository, self._request, self._saver = repository, request, saver
        self._step, self._tokens, self._seed = start.step, start.tokens, start.seed
        self._start = start
        self._losses: list[tuple[int, float]] = []  # updates, and the mean of their losses
        self._logged = start.step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and log as the settings say now; transformers goes by what the checkpoint's state says."""
        state.save_steps, state.logging_steps = args.save_steps, args.logging_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """End at the update that was asked for, with a save, and a log for each save."""
        if state.global_step >= self._request.stop:
            control.should_save = control.should_training_stop = True
        control.should_log = control.should_log or control.should_save
        return control

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the mean loss since the last save."""
        logs = kwargs["logs"]
        if "loss" in logs:
            self._losses.append((state.global_step - self._logged, logs["loss"]))
            self._logged = state.global_step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Commit what was saved."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # each process writes the state of its own random numbers
        if self._saver:
            self._commit(
                os.path.join(args.output_dir, f"checkpoint-{state.global_step}"), state.global_step, kwargs["model"]
            )

    def keep(self, model: Any, folder: str) -> None:
        """Commit a model that needs no training."""
        model.save_pretrained(folder)
        self._commit(folder, self._step, model)

    def _commit(self, folder: str, step: int, model: Any) -> None:
        assert self._saver
        settings, steps = self._request.settings, step - self._step
        count = sum(updates for updates, _ in self._losses)
        loss = sum(updates * mean for updates, mean in self._losses) / count if count else None
        tokens = self._tokens + steps * settings.training.batch * settings.text.block
        if self._request.part.lora:
            path = os.path.join(folder, "adapter_config.json")
            bind(path, base_digests(self._repository, self._start.commit), path)
        self._saver.save(
            folder,
            Checkpoint(self._request.domain, step, tokens, self._seed, loss),
            {"Balance": self._request.balance, **self._request.part.trailers(), "Eval": self._evaluated(model)},
        )
        self._step, self._tokens, self._losses = step, tokens, []

    def _evaluated(self, model: Any) -> str:
        """The loss of each split that was asked for, ``SPLIT`` of the domain itself or ``DOMAIN:SPLIT``."""
        import numpy as np

        text = self._request.settings.text
        found = []
        for name in self._request.eval_splits:
            domain, _, split = name.rpartition(":")
            tokens = load(
                self._repository, domain or self._request.domains[0], split, text, self._start.commit or "HEAD"
            ).tokens
            losses = -log_probs(model, tokens, text.block)
            found.append(f"{name}={np.nanmean(losses, dtype=np.float64):.6g}")
        return ",".join(found)

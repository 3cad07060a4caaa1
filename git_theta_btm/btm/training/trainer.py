"""The trainer: that of transformers, with the order of items and the learning rate a pure function of the update's
number, so that whatever was interrupted goes on as if it had not been.

Nothing imports this module before a training starts: transformers takes seconds.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from ...errors import UsageError
from ..settings import Training
from .restoring import STATE

_SCHEDULES = ("polynomial", "linear", "cosine", "constant")
_LOGGED = 50  # updates between two lines of the log, as in Branch-Train-Merge


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate's course over ``steps`` updates, ``warmup`` of which it rises in, from the update ``start``."""

    kind: str
    steps: int
    warmup: int
    start: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _SCHEDULES:
            raise UsageError(f"schedule cannot be {self.kind!r}: it is {', '.join(_SCHEDULES)}")

    def __call__(self, done: int) -> float:
        """The factor of the update that comes after ``done``, counted from ``start``."""
        if done < self.warmup:
            return (done + 1) / (self.warmup + 1)
        left = max(0, self.steps - done) / max(1, self.steps - self.warmup)
        if self.kind == "cosine":
            return 0.5 - 0.5 * math.cos(math.pi * left)
        return 1.0 if self.kind == "constant" else left


def schedule(training: Training, start: int = 0) -> Schedule:
    """The schedule that the settings name, for the updates from ``start`` on."""
    steps = training.steps - start
    return Schedule(training.schedule, steps, round(training.warmup * steps), start)


class ExpertTrainer(Trainer):
    """A trainer of one seed or expert."""

    def __init__(self, *, course: Schedule, **options: Any) -> None:
        super().__init__(**options)
        self._course = course

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)  # type: ignore[arg-type]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: the model was read from its commit."""

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over all parameters, also frozen ones, which it skips: so its state fits, whatever is trained."""
        if self.optimizer is None:
            found: Any = model or self.model
            decayed = set(self.get_decay_parameter_names(found))
            named = list(found.named_parameters())
            groups = [
                {"params": [p for n, p in named if n in decayed], "weight_decay": self.args.weight_decay},
                {"params": [p for n, p in named if n not in decayed], "weight_decay": 0.0},
            ]
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            rate, epsilon = self.args.learning_rate, self.args.adam_epsilon
            self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule, from its start."""
        if self.lr_scheduler is None:
            course, target = self._course, cast(torch.optim.Optimizer, optimizer or self.optimizer)
            self.lr_scheduler = LambdaLR(target, lambda done: course(done))
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        rate, done = self.args.learning_rate, self.state.global_step - self._course.start
        scheduler: Any = self.lr_scheduler
        groups: Any = self.optimizer.param_groups if self.optimizer else []
        for group in groups:  # the position follows from the update's number, and from nothing else
            group["initial_lr"], group["lr"] = rate, rate * self._course(done)
        scheduler.base_lrs = [rate for _ in groups]
        scheduler.last_epoch, scheduler._step_count = done, done + 1
        scheduler._last_lr = [group["lr"] for group in groups]


def arguments(training: Training, folder: str, processes: int, rate: float) -> TrainingArguments:
    """What transformers is told. Raises ``UsageError`` if a batch cannot be dealt out to so many processes."""
    own, rest = divmod(training.batch, processes)
    if rest or not own:
        raise UsageError(f"a batch of {training.batch} blocks cannot be dealt out to {processes} processes")
    micro = max(size for size in range(1, min(own, training.micro_batch) + 1) if own % size == 0)
    backend = ("nccl" if torch.cuda.is_available() else "gloo") if processes > 1 else None
    return TrainingArguments(
        output_dir=folder, max_steps=training.steps, per_device_train_batch_size=micro,
        gradient_accumulation_steps=own // micro, learning_rate=rate, weight_decay=training.weight_decay,
        adam_beta1=training.betas[0], adam_beta2=training.betas[1], adam_epsilon=training.epsilon,
        max_grad_norm=training.clip, save_strategy="steps", save_steps=training.save_every,
        logging_steps=min(_LOGGED, training.save_every), logging_first_step=False, report_to=[], seed=training.seed,
        bf16=training.precision == "bf16", fp16=training.precision == "fp16", use_cpu=not torch.cuda.is_available(),
        ddp_backend=backend, ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(), disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip


def write_state(folder: str, step: int) -> None:
    """A state without any memory but of the update's number, for a checkpoint that has none."""
    controls: Any = [TrainerControl()]  # transformers fills in what it finds here, and nothing else
    state = TrainerState(global_step=step, train_batch_size=1, stateful_callbacks=controls)
    state.save_to_json(os.path.join(folder, STATE))


def write_schedule(path: str) -> None:
    """A schedule's state for a checkpoint that has an optimizer's and no other: transformers loads both or none."""
    torch.save({"lr_lambdas": []}, path)

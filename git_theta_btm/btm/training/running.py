"""Running: one training, from wherever its branch is to the update that was asked for.

The branch says all that is needed to go on: the model, the state of the optimizer, and the number of the update, from
which the order of the text and the learning rate follow.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from ...repository import Repository
from .. import models
from ..data.tokenizers import NAME, tokenizer
from ..settings import Settings
from .blocks import blocks
from .committing import Line, commit_of
from .parts import freeze
from .records import Record, latest
from .requests import Request
from .saver import Saver
from .starting import Start, begin
from .workplaces import alone, run_folder, workplace


def run(request: Request) -> Record:
    """Train until it is done, and return the last checkpoint. In one of several processes, take its part in that.

    Raises ``ThetaError``, and whatever a training can run into.
    """
    repository = Repository(request.root)
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    line = Line(repository, request.ref)
    with ExitStack() as stack:
        saver, found = None, None
        if not rank:
            saver = Saver(line, request, stack.enter_context(alone(repository, request.ref)))
            found = begin(line, request, saver)
            stack.enter_context(workplace(repository, request.ref))
        start = found if found and count == 1 else _agreed(found)
        if start.step < request.stop or not start.commit:
            train(repository, request, start, saver)
        if saver:
            saver.clear()
    last = latest(repository.git, line.tip())
    assert last
    return last


def _agreed(start: Start | None) -> Start:
    """What the first of several processes has found, in all of them."""
    import torch

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    box = [start]
    torch.distributed.broadcast_object_list(box)
    assert box[0]
    return box[0]


# -- training ----------------------------------------------------------------------------------------------------------


def initial(root: str, settings: Settings) -> Any:
    """The model that a seed begins as: a folder's weights, or random ones."""
    name = models.named(root, settings.model)
    if os.path.isdir(name) and any(file.endswith(".safetensors") for file in os.listdir(name)):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(name)
    vocabulary = tokenizer(root, settings.text.tokenizer).vocabulary
    return models.create(name, vocabulary, settings.text.block, settings.training.seed)


def _model(repository: Repository, request: Request, start: Start) -> Any:
    from transformers import set_seed

    root = repository.worktree()
    if start.commit:
        found = models.ModelAt(repository, start.commit)
        model = found.model(found.state(adapted=not request.part.lora))  # a training of the adapter has it apart
    else:
        model = initial(root, request.settings)
    set_seed(request.settings.training.seed)
    if request.part.lora and os.path.exists(os.path.join(start.folder, "adapter_config.json")):
        from peft import PeftModel

        return PeftModel.from_pretrained(model, start.folder, is_trainable=True)
    return freeze(model, request.part)


def train(repository: Repository, request: Request, start: Start, saver: Saver | None) -> None:
    """Train from a start to the update that was asked for, committing on the way."""
    from .callbacks import Keeper
    from .trainer import ExpertTrainer, arguments, schedule

    settings = request.settings
    training = settings.training
    revision = Line(repository, request.ref).tip() or commit_of(repository.git, "HEAD")
    model = _model(repository, request, start)
    folder = run_folder(repository, request.ref)
    keeper = Keeper(repository, request, start, saver)
    rate = training.learning_rate * request.part.lr_scale
    options = arguments(training, folder, int(os.environ.get("WORLD_SIZE", 1)), rate)
    if not request.stop:
        keeper.keep(model, os.path.join(folder, "checkpoint-0"))
        return
    trainer = ExpertTrainer(
        course=schedule(training, start.schedule), model=model, args=options, callbacks=[keeper],
        train_dataset=blocks(repository, request, revision, start.data * training.batch),
        processing_class=_processing(repository.worktree(), settings.text.tokenizer),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=start.folder or None)


def _processing(root: str, name: str) -> Any:
    """The tokenizer whose files go with the model; none for bytes."""
    if name == NAME:
        return None
    from transformers import AutoTokenizer

    place = os.path.join(root, name)
    return AutoTokenizer.from_pretrained(place if os.path.isdir(place) else name)

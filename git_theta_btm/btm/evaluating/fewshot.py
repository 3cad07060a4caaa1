"""Few-shot tasks of lm-evaluation-harness, from local files. A task that wants to run code of its own is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ThetaError
from ..data.tokenizers import tokenizer
from ..settings import Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one task."""

    task: str
    shots: int
    metric: str
    value: float
    examples: int

    def fields(self) -> dict[str, Any]:
        """What JSON tells of it."""
        names = ("task", "shots", "metric", "value", "examples")
        return {name: getattr(self, name) for name in names}


def evaluate(model: PreTrainedModel, root: str, text: Text, tasks: Sequence[str]) -> list[Row]:
    """What a model makes of tasks, each a YAML file. Raises ``ThetaError`` if a task is none, and
    ``ModuleNotFoundError`` if lm-eval is not installed."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from ..ensembling.spelling import decoder
    from .harness import Harnessed

    configs = [read(path) for path in tasks]
    harnessed = Harnessed(model, tokenizer(root, text.tokenizer), decoder(root, text.tokenizer), text.block)
    try:
        manager = TaskManager(include_defaults=False)  # it would read thousands of files
        found = simple_evaluate(harnessed, tasks=configs, task_manager=manager, bootstrap_iters=0, log_samples=False)
    except (ValueError, KeyError, TypeError, OSError, AttributeError) as error:
        raise ThetaError(f"{', '.join(tasks)}: {' '.join(str(error).split())[:300]}") from None
    return list(_rows(found))


def check(tasks: Sequence[str]) -> None:
    """Raise what ``evaluate`` would for these files, before a model is loaded for them."""
    import lm_eval  # noqa: F401 - whether it is installed

    for path in tasks:
        read(path)


def read(path: str) -> dict[str, Any]:
    """The task in a file, its data files from the folder that it is in. Raises ``ThetaError``."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ThetaError(f"{path}: {getattr(error, 'strerror', None) or 'is no text in UTF-8'}") from None
    except yaml.constructor.ConstructorError:
        raise ThetaError(f"{path}: a tag such as !function would run code, which tasks here cannot") from None
    except yaml.YAMLError as error:
        raise ThetaError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not isinstance(found.get("task"), str):
        raise ThetaError(f"{path}: is no task of lm-eval: it has no 'task'")
    options = found.get("dataset_kwargs")
    if isinstance(options, dict) and "data_files" in options:
        options["data_files"] = _placed(options["data_files"], os.path.dirname(os.path.abspath(path)))
    return found


def _placed(files: Any, folder: str) -> Any:
    if isinstance(files, dict):
        return {name: _placed(value, folder) for name, value in files.items()}
    if isinstance(files, list):
        return [_placed(value, folder) for value in files]
    return os.path.join(folder, files) if isinstance(files, str) else files


def _rows(found: dict[str, Any]) -> Iterator[Row]:
    for task, metrics in found["results"].items():
        for name, value in metrics.items():
            metric, comma, _ = name.partition(",")
            if comma and isinstance(value, int | float) and not metric.endswith("_stderr"):
                yield Row(task, found["n-shot"][task], metric, float(value), found["n-samples"][task]["effective"])

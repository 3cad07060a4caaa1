"""Scores as a table: a line for each model, a column for each text, and what they come to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .cells import Subject, Table
from .perplexity import Score

BEST = "*"  # marks the least of a column


@dataclass(frozen=True, slots=True)
class Line:
    """A model and its scores, one for each text."""

    subject: Subject
    scores: tuple[Score, ...]

    @property
    def mean(self) -> float:
        """The mean of the perplexities, each text counting the same."""
        return math.fsum(score.perplexity for score in self.scores) / len(self.scores)

    @property
    def worst(self) -> float:
        """The largest perplexity."""
        return max(score.perplexity for score in self.scores)

    def fields(self, names: Sequence[str]) -> dict[str, Any]:
        """What JSON tells of it; the two averages of losses are those that DoReMi reports."""
        losses = [score.mean for score in self.scores]
        return {
            "model": self.subject.label,
            "commit": self.subject.commit,
            "domain": self.subject.domain,
            "scores": {
                name: {"perplexity": score.perplexity, "loss": score.mean, "tokens": score.tokens}
                for name, score in zip(names, self.scores, strict=True)
            },
            "mean_perplexity": self.mean,
            "worst_perplexity": self.worst,
            "uniform_avg_log_perplexity": math.fsum(losses) / len(losses),
            "worst_case_log_perplexity": max(losses),
        }


def lines(subjects: Iterable[Subject], names: Sequence[str], table: Table) -> list[Line]:
    """The lines of a table, in the order of the models."""
    return [Line(item, tuple(table[item.label, name] for name in names)) for item in subjects]


def cells(found: Sequence[Line], names: Sequence[str]) -> list[list[str]]:
    """The table in words: with several texts their mean and the worst, with several models a mark on each column's
    least."""
    numbers = [[score.perplexity for score in line.scores] for line in found]
    header = list(names)
    if len(names) > 1:
        header += ["mean", "worst"]
        numbers = [[*row, line.mean, line.worst] for row, line in zip(numbers, found, strict=True)]
    least = [min(column) if len(found) > 1 else -1.0 for column in zip(*numbers, strict=True)]
    rows = [["model", *header]]
    for line, row in zip(found, numbers, strict=True):
        words = [f"{number:.3f}{BEST if number == low else ''}" for number, low in zip(row, least, strict=True)]
        rows.append([line.subject.label, *words])
    return rows


def log(found: Sequence[Line], names: Sequence[str], split: str, text: dict[str, Any]) -> str:
    """Lines of JSON in the schema of MDEL's ``perplexity-results.jsonl``; ``text`` has ``tokenizer``, ``max_length``.

    Its ``num_samples`` are the windows that were read; there is no ``runtime`` of a result that was kept.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    rows = []
    for line in found:
        for name, score in zip(names, line.scores, strict=True):
            windows = -(-score.tokens // (text["max_length"] - 1))
            row = {"date": date, "runtime": None, "model": f"{line.subject.label}@{line.subject.commit}"}
            rows.append(
                {**row, "tokenizer": text["tokenizer"], "dataset": name, "split": split}
                | {"max_length": text["max_length"], "dataset_key": "text", "num_samples": windows}
                | {"perplexity": score.perplexity}
            )
    return "".join(json.dumps(row) + "\n" for row in rows)

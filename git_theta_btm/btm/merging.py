"""Merging experts: which weights, and what each way to use them is worth on a domain's held-out text."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp
from typing import TYPE_CHECKING

from ..errors import ThetaError, UsageError
from ..merging.recipe import Recipe
from ..merging.weights import posterior
from ..repository import Repository
from .adapting import refusal
from .data.tokens import Stream, load
from .evaluating.losses import log_probs
from .evaluating.perplexity import score
from .experts import expert
from .models import ModelAt
from .places import PRIORS
from .settings import Settings
from .soups import Kitchen, Weights, greedy, normalised, search, strongest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

WAYS = ("uniform", "prior:DOMAIN", "argmax:DOMAIN", "greedy", "search")


@dataclass(frozen=True, slots=True)
class Row:
    """One model, or one way to use several, and its perplexity on the test split of a domain."""

    name: str
    perplexity: float


@dataclass(frozen=True, slots=True)
class Wish:
    """How weights are to be found: a way, or numbers; a prior is sharpened, and cut to its largest."""

    way: str
    sharpen: float | None = None
    top_k: int | None = None
    evaluations: int = 40


class Contest:
    """The experts of a merge and a domain whose held-out text decides."""

    def __init__(self, repository: Repository, settings: Settings, names: Sequence[str], domain: str | None) -> None:
        self._repository, self._settings = repository, settings
        self.experts = [expert(repository.git, name) for name in names]
        for found in self.experts:
            if adapter := ModelAt(repository, found.tip).adapter:
                raise refusal(found.branch, adapter)
        self._domain = domain
        self._kitchen = Kitchen(repository, [found.tip for found in self.experts])
        self._heard: Callable[[str], None] = lambda line: None

    def listen(self, heard: Callable[[str], None]) -> None:
        """Tell what is going on, a line for each merge that is tried."""
        self._heard = heard

    @property
    def domain(self) -> str:
        """The domain. Raises ``UsageError`` if none was named."""
        if self._domain is None:
            raise UsageError("which domain's held-out text decides? --domain names it")
        return self._domain

    # -- weights -----------------------------------------------------------------------------------------------------

    def weights(self, wish: Wish) -> Weights:
        """The weights of the experts, which sum to 1. Raises ``ThetaError`` for a prior that is not there."""
        way, _, name = wish.way.partition(":")
        names = [found.branch for found in self.experts]
        if way in ("prior", "argmax"):
            found = posterior(self._prior(name or self.domain), names, wish.sharpen, wish.top_k)
            return strongest(found) if way == "argmax" else normalised(found)
        if way == "uniform":
            return normalised([1.0] * len(names))
        if way == "greedy":
            return greedy([self._alone(index) for index in range(len(names))], self._loss).weights
        if way == "search":
            return search(self._start(names, wish), self._loss, wish.evaluations).weights
        return self._given(wish.way, names)

    def _given(self, words: str, names: Sequence[str]) -> Weights:
        try:
            numbers = [float(word) for word in words.split(",")]
        except ValueError:
            raise UsageError(f"weights cannot be {words[:40]!r}: numbers, or {', '.join(WAYS)}") from None
        if len(numbers) != len(names):
            raise UsageError(f"{len(numbers)} weights for {len(names)} experts")
        return normalised(numbers)

    def _prior(self, name: str) -> str:
        path = name if os.path.exists(name) else os.path.join(self._repository.worktree(), PRIORS, f"{name}.json")
        if not os.path.exists(path):
            raise ThetaError(f"there is no prior for {name}: git btm prior {name}")
        return path

    def _start(self, names: Sequence[str], wish: Wish) -> Weights:
        path = os.path.join(self._repository.worktree(), PRIORS, f"{self.domain}.json")
        if os.path.exists(path):
            return normalised(posterior(path, names, wish.sharpen, wish.top_k))
        return normalised([1.0] * len(names))

    # -- held-out text -----------------------------------------------------------------------------------------------

    @cached_property
    def _valid(self) -> Stream:
        return load(self._repository, self.domain, "valid", self._settings.text)

    @cached_property
    def _test(self) -> Stream:
        return load(self._repository, self.domain, "test", self._settings.text)

    def _run(self, model: PreTrainedModel, stream: Stream) -> NDArray[np.float32]:
        return log_probs(model, stream.tokens, self._settings.text.block)

    def _alone(self, index: int) -> float:
        model = ModelAt(self._repository, self.experts[index].tip).model()
        return score(self._run(model, self._valid)).mean

    def _loss(self, weights: Weights) -> float:
        found = score(self._run(self._kitchen.merged(Recipe(weights=weights)), self._valid)).mean
        shown = ", ".join(f"{weight:.3g}" for weight in weights)
        self._heard(f"{shown}: perplexity {exp(min(found, 700)):.4g}")
        return found

    def table(self, weights: Weights, recipe: Recipe) -> list[Row]:
        """The seed, each expert, their ensemble, the uniform merge and this one, on the test split."""
        import numpy as np

        from .ensembling.posterior import evaluate

        rows = []
        seed = self.experts[0].checkpoint.seed
        if seed:
            rows.append(Row("seed", self._tested(ModelAt(self._repository, seed).model())))
        losses = []
        for found in self.experts:
            losses.append(self._run(ModelAt(self._repository, found.tip).model(), self._test))
            rows.append(Row(found.branch, score(losses[-1]).perplexity))
        mixed = evaluate(np.stack(losses), np.array(weights))
        rows.append(Row("ensemble", mixed.score.perplexity))
        uniform = Recipe(weights=normalised([1.0] * len(self.experts)))
        rows.append(Row("uniform merge", self._tested(self._kitchen.merged(uniform))))
        rows.append(Row("this merge", self._tested(self._kitchen.merged(recipe))))
        return rows

    def _tested(self, model: PreTrainedModel) -> float:
        return score(self._run(model, self._test)).perplexity

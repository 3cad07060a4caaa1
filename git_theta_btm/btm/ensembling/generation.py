"""Text from an ensemble: the experts read it together, and each next token is drawn from their mixture."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from ..evaluating.cells import Subject, placed
from .posterior import Array, log_sum, weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Drawing:
    """How tokens are drawn: the most likely one at temperature 0, else at random, by a seed; ``loaded`` is how many
    experts are in memory at once, all if it is None."""

    temperature: float = 0.0
    seed: int = 0
    loaded: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UsageError(f"the temperature cannot be {self.temperature:g}: it is at least 0")
        if self.loaded is not None and self.loaded < 1:
            raise UsageError("one expert has to be in memory at least")


class Shelf:
    """Models of which so many are in memory; the one that was used longest ago makes room."""

    def __init__(self, size: int, device: str | None) -> None:
        self._size, self._device = size, device
        self._models: OrderedDict[str, PreTrainedModel] = OrderedDict()
        self.loads = 0

    def get(self, subject: Subject) -> PreTrainedModel:
        """The model, loaded if need be."""
        if subject.label not in self._models:
            while len(self._models) >= self._size:
                self._models.popitem(last=False)
            self._models[subject.label] = placed(subject.load(), self._device)
            self.loads += 1
        self._models.move_to_end(subject.label)
        return self._models[subject.label]


class Reader:
    """One expert as it reads. It remembers what it made of the text (its cache of keys and values), and starts again
    from the last half of it when it has seen as much as it can."""

    def __init__(self, subject: Subject, shelf: Shelf, block: int) -> None:
        self._subject, self._shelf, self._block = subject, shelf, block
        self._window: list[int] = []
        self._cache: Any = None

    def read(self, tokens: Sequence[int]) -> Array:
        """The log-probabilities of whatever follows each of these tokens: ``[tokens, vocabulary]``."""
        rows, rest = [], list(tokens)
        while rest:
            if len(self._window) >= self._block:
                self._window, self._cache = self._window[-(self._block // 2) :], None
            step, rest = rest[: self._block - len(self._window)], rest[self._block - len(self._window) :]
            new = step if self._cache is not None else [*self._window, *step]
            rows.append(self._forward(new)[-len(step) :])
            self._window += step
        return np.concatenate(rows)

    def _forward(self, tokens: Sequence[int]) -> Array:
        import torch

        model = self._shelf.get(self._subject)
        with torch.inference_mode():
            ids = torch.tensor([list(tokens)], device=model.device)
            answer = model(input_ids=ids, past_key_values=self._cache, use_cache=True)
            self._cache = answer.past_key_values
            found: Array = torch.log_softmax(answer.logits[0].float(), dim=-1).double().cpu().numpy()
        return found


class Speaker:
    """An ensemble as it reads and writes one text. ``mixing`` is the prior and the posterior's name; ``text`` how many
    tokens an expert sees, and the token that ends a text."""

    def __init__(
        self, subjects: Sequence[Subject], mixing: tuple[Sequence[float], str], text: tuple[int, int], drawing: Drawing
    ) -> None:
        shelf = Shelf(drawing.loaded or len(subjects), drawing.device)
        block, self._end = text
        self._readers = [Reader(subject, shelf, block) for subject in subjects]
        self._prior, self._posterior, self._temperature = np.array(mixing[0]), mixing[1], drawing.temperature
        self._random = np.random.default_rng(drawing.seed)
        self._seen = np.empty((len(subjects), 0))  # log-probabilities of the text so far, but its first token
        self._next = np.empty(0)  # of what follows, by expert
        self._backwards = False

    def generate(self, prompt: Sequence[int], count: int) -> Iterator[int]:
        """At most so many tokens after the prompt, until the one that ends a text. The prompt is read as the start of
        a text: after an end of another."""
        self.read([self._end, *prompt])
        for _ in range(count):
            token = self.draw()
            if token == self._end:
                return
            yield token
            self.read([token])

    def read(self, tokens: Sequence[int]) -> None:
        """Go on with these tokens."""
        # To and fro: the models that were used last are those that are still in memory.
        order = range(len(self._readers))[:: -1 if self._backwards else 1]
        self._backwards = not self._backwards
        found = {index: self._readers[index].read(tokens) for index in order}
        rows = np.stack([found[index] for index in range(len(self._readers))])
        said = np.take_along_axis(rows[:, :-1], np.array(tokens)[None, 1:, None], 2)[..., 0]
        if self._next.size:
            said = np.concatenate([self._next[:, tokens[0], None], said], axis=1)
        self._seen = np.concatenate([self._seen, said], axis=1)
        self._next = rows[:, -1]

    def distribution(self) -> Array:
        """The log-probabilities of what follows."""
        following = np.zeros((len(self._seen), 1))  # weights never depend on the last column
        by = weights(np.concatenate([self._seen, following], axis=1)[:, None], self._prior, self._posterior)
        return log_sum(by[:, 0, -1, None] + self._next)

    def draw(self) -> int:
        """The next token, which is not read yet."""
        found = self.distribution()
        if not self._temperature:
            return int(found.argmax())
        scaled = found / self._temperature
        chances = np.exp(scaled - scaled.max())
        return int(self._random.choice(len(chances), p=chances / chances.sum()))

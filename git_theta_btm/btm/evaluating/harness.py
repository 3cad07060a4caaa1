"""A model as lm-evaluation-harness wants one: log-likelihoods of continuations, and greedy text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from ..data.tokenizers import Tokenizer
from ..ensembling.generation import Drawing, Speaker
from ..ensembling.spelling import Decoder
from .cells import Subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LONGEST = 256  # tokens of an answer, if its task does not say


class Harnessed(TemplateLM):  # type: ignore[misc]
    """A model and its tokenizer. It sees at most ``block`` tokens: what it was trained on; of more, the last."""

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, decoder: Decoder, block: int) -> None:
        super().__init__()
        self._model, self._by, self._decoder, self._block = model, tokenizer, decoder, block

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text, and that a text without any context follows."""
        return self._by.end

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: FBT001
        """The tokens of a text; never special ones."""
        return [int(token) for token in self._by.encode([string])[0]]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:  # noqa: FBT001, FBT002
        """The log-likelihood of whole texts, each token predicted once, with as much before it as there is room for."""
        found = []
        for request in requests:
            tokens = self.tok_encode(request.args[0])
            windows = get_rolling_token_windows(tokens, self._by.end, self._block, 1)
            pairs = [(("", ""), *make_disjoint_window(window)) for window in windows]
            found.append(sum(value for value, _ in self._loglikelihood_tokens(pairs)))
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return [self._continuation(context, continuation) for _, context, continuation in requests]

    def _continuation(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        """The log-likelihood of a continuation, and whether each of its tokens is the most likely."""
        import torch

        tokens = [*context, *continuation][-(self._block + 1) :]
        count = min(len(continuation), len(tokens) - 1)
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=self._model.device)
            logits = self._model(input_ids=ids[:, :-1], use_cache=False).logits[0, -count:].float()
            said = torch.log_softmax(logits, dim=-1).double().cpu().numpy()
        targets = np.array(tokens[-count:])
        return float(said[np.arange(count), targets].sum()), bool((said.argmax(axis=1) == targets).all())

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:  # noqa: FBT001, FBT002
        """The most likely text after each context, until one of the task's stops, the end, or the greatest length."""
        return [self._answer(*request.args) for request in requests]

    def _answer(self, context: str, options: dict[str, Any]) -> str:
        stops = options.get("until") or []
        stops = [stops] if isinstance(stops, str) else stops
        subject = Subject("model", "", "", lambda: self._model)
        device = str(self._model.device)
        speaker = Speaker([subject], ((1.0,), "static"), (self._block, self._by.end), Drawing(device=device))
        tokens: list[int] = []
        text = ""
        for token in speaker.generate(self.tok_encode(context), options.get("max_gen_toks") or _LONGEST):
            tokens.append(token)
            text = self._decoder(tokens)
            if ends := [text.index(stop) for stop in stops if stop and stop in text]:
                return text[: min(ends)]
        return text

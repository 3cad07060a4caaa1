"""Log-probabilities that a model gives to the tokens that follow, window by window of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ThetaError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS = 1 << 26  # numbers at a time: 256 MiB as float32, whatever the vocabulary


def log_probs(
    model: PreTrainedModel, tokens: NDArray[np.integer[Any]], block: int, batch: int = 32
) -> NDArray[np.float32]:
    """The log-probability, in nats, of each token of each window but its first: ``[windows, block - 1]``.

    The windows are ``block`` tokens each, and what remains; NaN stands where the last has nothing to predict. At most
    ``batch`` windows are run at a time, on the model's device, without dropout.

    Raises ``ThetaError`` for tokens that the model does not know, or windows that are too long for it.
    """
    _check(model, tokens, block)
    full, rest = divmod(len(tokens), block)
    found = np.full((full + bool(rest), block - 1), np.nan, np.float32)
    step = max(1, min(batch, _LOGITS // (block * _vocabulary(model))))
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    try:
        for start in range(0, full, step):
            stop = min(start + step, full)
            found[start:stop] = _run(model, tokens[start * block : stop * block].reshape(-1, block))
        if rest > 1:
            found[full, : rest - 1] = _run(model, tokens[full * block :].reshape(1, -1))[0]
    finally:
        model.train(training)
    return found


def _run(model: PreTrainedModel, windows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        ids = torch.from_numpy(windows.astype(np.int64)).to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        found = -torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        array: NDArray[np.float32] = found.cpu().numpy()
    return array


def _check(model: PreTrainedModel, tokens: NDArray[np.integer[Any]], block: int) -> None:
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and min(block, len(tokens)) > longest:
        raise ThetaError(f"a window of {block} tokens is too long for this model: it reads {longest}")
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < _vocabulary(model):
        raise ThetaError(f"token {int(tokens.max())} is unknown to this model, which knows {_vocabulary(model)}")


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.vocab_size)

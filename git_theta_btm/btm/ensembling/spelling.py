"""Tokens back to text."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..data import tokenizers

Decoder = Callable[[Sequence[int]], str]


def decoder(root: str, name: str) -> Decoder:
    """What spells tokens of a tokenizer: ``bytes``, or a folder (from ``root``) or name of Hugging Face's.

    Tokens that are no text are left out, as ends of texts are; broken UTF-8 shows as U+FFFD.
    """
    if name == tokenizers.NAME:
        return lambda ids: bytes(token for token in ids if token < tokenizers.END).decode(errors="replace")
    from transformers import AutoTokenizer

    folder = os.path.join(root, name)
    found = AutoTokenizer.from_pretrained(folder if os.path.isdir(folder) else name)
    return lambda ids: str(found.decode(list(ids), skip_special_tokens=True))

"""Tokenizers: bytes, which need no files, or one of Hugging Face's. No code that comes with a tokenizer is run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import ThetaError
from ..models import BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = NDArray[np.integer[Any]]

NAME = "bytes"
END = 256  # of a text, where a token is a byte
# What a folder's tokenizer is made of; everything else in it is the model's.
_FILES = ("tokenizer*", "vocab*", "merges*", "special_tokens_map.json", "added_tokens.json", "*.model", "*.tiktoken")
_ENCODED = 65536  # tokens that two bytes can tell apart


class Tokenizer(Protocol):
    """Texts as tokens."""

    @property
    def vocabulary(self) -> int:
        """Tokens that there are: each is less than this."""

    @property
    def end(self) -> int:
        """The token that ends a text."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text, without one that ends it."""


def tokenizer(root: str, name: str) -> Tokenizer:
    """The tokenizer ``bytes``, that of a folder (from ``root``, if it is no absolute path), or one that Hugging Face's
    libraries know by name. Raises ``ThetaError``."""
    return Bytes() if name == NAME else HuggingFace(_place(root, name))


def identity(root: str, name: str) -> str:
    """What names a tokenizer: the digest of a folder's files; a name stands for itself. Raises ``ThetaError``."""
    place = _place(root, name)
    if name == NAME or not os.path.isdir(place):
        return name
    digest = sha256()
    files = [file for file in sorted(os.listdir(place)) if any(fnmatch(file, pattern) for pattern in _FILES)]
    if not files:
        raise ThetaError(f"{name} has no tokenizer.json, and no other file of a tokenizer")
    for file in files:
        with open(os.path.join(place, file), "rb") as stream:
            digest.update(f"{file}\0{sha256(stream.read()).hexdigest()}\n".encode())
    return digest.hexdigest()


def dtype(vocabulary: int) -> str:
    """The smallest type, as NumPy spells it, that holds every token."""
    return "<u2" if vocabulary <= _ENCODED else "<i4"


def _place(root: str, name: str) -> str:
    folder = os.path.join(root, name)
    return folder if os.path.isdir(folder) else name


class Bytes:
    """A token for each byte of UTF-8, one for the end of a text, one for padding."""

    vocabulary = BYTES
    end = END

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        import numpy as np

        return [np.frombuffer(text.encode(), np.uint8) for text in texts]


class HuggingFace:
    """A tokenizer of the transformers library."""

    def __init__(self, place: str) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(place)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ThetaError(f"{place!r} is no tokenizer: {reason}") from None
        if self._tokenizer.eos_token_id is None:
            raise ThetaError(f"the tokenizer {place!r} has no token for the end of a text: set its eos_token")
        self.end = int(self._tokenizer.eos_token_id)
        self.vocabulary = max(self._tokenizer.get_vocab().values(), default=0) + 1

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        import numpy as np

        # Special tokens are ours to add; verbose would warn of texts that are longer than the model's context.
        found = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [np.asarray(ids, np.int64) for ids in found]

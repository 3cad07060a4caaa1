"""Vocabularies as tokenizer files of Hugging Face's: of bytes, and of a fairseq dictionary.

Reference: ``tokenizer.json`` as huggingface/tokenizers 0.20 reads it; the byte alphabet is that of GPT-2's encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..errors import ThetaError

END, PAD = "<|endoftext|>", "<|padding|>"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # the first four of every fairseq dictionary


def of_bytes() -> dict[str, str]:
    """The files, by name, of the tokenizer whose tokens are bytes: 256 is the end of a text, 257 padding."""
    tokens = {symbol: byte for byte, symbol in enumerate(_alphabet())}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _files(
        {"type": "BPE", "dropout": None, "unk_token": None, "vocab": tokens, "merges": []},
        {END: 256, PAD: 257},
        {"pre_tokenizer": byte_level, "decoder": byte_level},
        {"eos_token": END, "bos_token": END, "pad_token": PAD},
    )


def of_dictionary(text: str, rows: int) -> dict[str, str]:
    """The files of the tokenizer that a fairseq ``dict.txt`` is: the symbols of its lines, separated by white space, as
    ``fairseq-preprocess`` reads them. ``rows`` are those of the model's table.

    Raises ``ThetaError`` if it is no dictionary, or has more symbols than the table.
    """
    tokens = {name: number for number, name in enumerate(SPECIAL)}
    for number, line in enumerate(filter(None, text.split("\n")), 1):
        symbol, _, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not symbol or not count.isdecimal():
            raise ThetaError(f"line {number} of the dictionary is not 'SYMBOL COUNT': {line[:60]!r}")
        if line.endswith("#fairseq:overwrite"):
            tokens.pop(symbol, None)
        if symbol in tokens:
            raise ThetaError(f"line {number} of the dictionary has {symbol[:60]!r} a second time")
        tokens[symbol] = len(tokens)
    if len(tokens) > rows:
        raise ThetaError(f"the dictionary has {len(tokens)} symbols, and the model {rows}: it is another one's")
    return _files(
        {"type": "WordLevel", "vocab": tokens, "unk_token": "<unk>"},
        {name: tokens[name] for name in SPECIAL},
        {"pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None},
        {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    )


def _files(
    model: Mapping[str, object], added: Mapping[str, int], parts: Mapping[str, object], roles: Mapping[str, str]
) -> dict[str, str]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": name, **flags} for name, number in added.items()],
        "normalizer": None, **parts, "post_processor": None, "model": model,
    }  # fmt: skip
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **roles}
    return {"tokenizer.json": json.dumps(document), "tokenizer_config.json": json.dumps(config, indent=2) + "\n"}


def _alphabet() -> Sequence[str]:
    """A printable character for each byte: itself where it is one, else the next from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]

"""Rows of two vocabularies, matched by the tokens' text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import ThetaError
from git_theta_btm.merging.resolve import Rows
from git_theta_btm.merging.vocabulary import rows


def plain(tokens: dict[str, int]) -> bytes:
    return json.dumps(tokens).encode()


def tokenizer(vocabulary: Any, *added: tuple[str, int]) -> bytes:
    items = [{"id": row, "content": text, "special": True} for text, row in added]
    return json.dumps({"version": "1.0", "added_tokens": items, "model": {"vocab": vocabulary}}).encode()


def test_by_text_wherever_the_token_is() -> None:
    ours, theirs = plain({"a": 0, "b": 1, "c": 2}), plain({"c": 0, "x": 1, "a": 2, "y": 3})
    assert rows(ours, theirs) == Rows(4, (2, None, 0))


def test_all_forms_say_the_same() -> None:
    words = {"a": 0, "b": 1, "<pad>": 2}
    forms = [
        plain(words),
        tokenizer(words, ("<pad>", 2)),
        tokenizer({"a": 0, "b": 1}, ("<pad>", 2)),
        tokenizer([["a", -1.5], ["b", -2.0], ["<pad>", 0.0]]),
        tokenizer([["a", -1.5], ["b", -2.0]], ("<pad>", 2)),
    ]
    for form in forms:
        assert rows(form, plain({"<pad>": 0, "b": 1})) == Rows(2, (None, 1, 0))
        assert rows(form, form) == Rows(3, (0, 1, 2))


def test_rows_without_a_token_match_by_number() -> None:
    ours, theirs = plain({"a": 0, "b": 1}), plain({"b": 0, "a": 1, "c": 2})
    assert rows(ours, theirs, (6, 5)) == Rows(5, (1, 0, None, 3, 4, None))


def test_holes_are_rows_without_a_token() -> None:
    assert rows(plain({"a": 0, "b": 2}), plain({"b": 0, "a": 3})) == Rows(4, (3, 1, 0))
    assert rows(plain({"a": 0, "b": 2}), plain({"b": 1, "a": 2})) == Rows(3, (2, None, 1))


def test_two_tokens_of_one_row_are_found_by_either() -> None:
    assert rows(plain({"old": 0, "new": 0}), plain({"x": 0, "new": 1})) == Rows(2, (1,))


def test_nothing_in_common() -> None:
    assert rows(plain({"a": 0}), plain({"b": 0})) == Rows(1, (None,))
    assert rows(plain({}), plain({"b": 0})) == Rows(1, ())


def test_a_vocabulary_of_the_word_model() -> None:
    assert rows(plain({"model": 0, "b": 1}), plain({"b": 0, "model": 1})) == Rows(2, (1, 0))


@given(st.permutations(list(range(30))), st.integers(0, 5), st.integers(0, 5))
def test_a_permutation_is_found(order: list[int], ours: int, theirs: int) -> None:
    first = plain({f"t{number}": number for number in range(30)})
    second = plain({f"t{number}": place for number, place in enumerate(order)})
    padding = [30 + row if row < theirs else None for row in range(ours)]
    assert rows(first, second, (30 + ours, 30 + theirs)) == Rows(30 + theirs, (*order, *padding))


def test_real_tokenizers() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "law": 1, "court": 2}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.add_special_tokens(["<pad>"])
    other = tokenizers.Tokenizer(tokenizers.models.Unigram([("<pad>", 0.0), ("court", -1.0), ("law", -1.0)]))
    found = rows(model.to_str().encode(), other.to_str().encode())
    assert found == Rows(3, (None, 2, 1, 0))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"1", b"\xff\xfe", b"[" * 100_000, b'{"a": -1}', b'{"a": true}', b'{"a": 1.0}', b'{"a": "0"}',
        b'{"a": 999999999999}', b'{"a": ' + b"9" * 5000 + b"}", b'{"model": {}}', b'{"model": {"vocab": 3}}',
        b'{"model": {"vocab": [1]}}', b'{"model": {"vocab": [[]]}}', b'{"model": {"vocab": [[1, 2]]}}',
        b'{"model": {"vocab": {"a": []}}}', b'{"model": {"vocab": {}}, "added_tokens": 3}',
        b'{"model": {"vocab": {}}, "added_tokens": [3]}', b'{"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}',
        b'{"model": {"vocab": {}}, "added_tokens": [{"content": "a"}]}',
    ],
)  # fmt: skip
def test_what_is_no_tokenizer(data: bytes) -> None:
    for ours, theirs in ((data, b'{"a": 0}'), (b'{"a": 0}', data)):
        with pytest.raises(ThetaError) as error:
            rows(ours, theirs)
        assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_tokens_have_to_be_within_their_tables() -> None:
    with pytest.raises(ThetaError, match="their tokenizer has a token for row 5 of a table of 5"):
        rows(plain({"a": 0}), plain({"b": 5}), (9, 5))
    with pytest.raises(ThetaError, match="our tokenizer has a token for row 999999999999"):
        rows(plain({"a": 999999999999}), plain({"b": 5}), (9, 9))


KEYS = st.sampled_from(["model", "vocab", "added_tokens", "content", "id", "a"])
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@settings(deadline=None, max_examples=200)
@given(DOCUMENTS)
def test_any_json_is_a_tokenizer_or_an_error(document: Any) -> None:
    try:
        found = rows(json.dumps(document).encode(), b'{"a": 0}')
    except ThetaError:
        return
    assert isinstance(document, dict) and found.count == 1

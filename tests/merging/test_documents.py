"""YAML as typed values: what goes wrong is told in one line that names the file and the key."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import UsageError
from git_theta_btm.merging.documents import read
from git_theta_btm.merging.recipe import Gradient


def test_numbers_are_those_that_the_text_has() -> None:
    fields = read("{a: 0.1, b: 3, c: 1e-3, d: '0.2', e: -.5}", "f").entries()
    assert [fields[key].number() for key in "abcde"] == [0.1, 3.0, 1e-3, 0.2, -0.5]


@pytest.mark.parametrize("text", ["yes", "word", "[1]", ".nan", ".inf", "1e999", "~", "2024-01-02"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(UsageError, match="f.yml: a: has to be a number"):
        read(f"a: {text}", "f.yml").entries()["a"].number()


def test_a_gradient_is_a_mapping() -> None:
    assert read("a: {gradient: [0.2, 1, 0.2]}", "f").entries()["a"].scalar() == Gradient((0.2, 1.0, 0.2))
    for wrong in ("{gradient: []}", "{gradient: 1}", "{}", "{gradients: [1]}", "{gradient: [a]}"):
        with pytest.raises(UsageError, match="f: a"):
            read(f"a: {wrong}", "f").entries()["a"].scalar()


@pytest.mark.parametrize(
    ("text", "kind"), [("no", "truth value"), ("1234567", "number"), ("1.5", "number"), ("2024-01-02", "date")]
)
def test_a_branch_that_yaml_takes_for_something_else_needs_quotes(text: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"f: a: has to be a text, not a {kind}: put it in quotes"):
        read(f"a: {text}", "f").entries()["a"].text()
    assert read(f"a: '{text}'", "f").entries()["a"].text() == text


def test_names_are_texts() -> None:
    with pytest.raises(UsageError, match="read as a truth value: put it in quotes"):
        read("on: 1", "f").entries()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML: line 1, column"),
        ("- a", "has to be a mapping"),
        ("", "has to be a mapping"),
        ("a: !!python/object/apply:os.system [id]", "is no YAML"),
        ("[" * 5000, "is no YAML"),
        ("a: " + "9" * 5000, "is no YAML"),
        ("a: 2024-99-99", "is no YAML"),
        ("{[a]: 1}", "is no YAML"),
        ("a: \x00", "is no YAML"),
        (" " * (1 << 21), "is longer"),
    ],
)
def test_what_is_no_document(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^f: {words}") as error:
        read(text, "f")
    assert "\n" not in str(error.value)


def test_aliases_that_multiply_are_neither_copied_nor_printed() -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40))
    value = read(f"a0: &a0 [x]\n{levels}", "f").entries()["a39"]
    for reader in (value.number, value.text, value.option, value.truth, value.texts):
        with pytest.raises(UsageError) as error:
            reader()
        assert len(str(error.value)) < 100


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=60))
def test_any_text_is_a_document_or_an_error_of_one_line(text: str) -> None:
    try:
        read(text, "f")
    except UsageError as error:
        assert "\n" not in str(error)

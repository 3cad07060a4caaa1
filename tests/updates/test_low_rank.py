"""Low rank predicts what a plain loop over Python's floats computes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from git_theta_btm.encoded import Decoded, Header, encode_span, table
from git_theta_btm.errors import CorruptObject
from git_theta_btm.floats import narrow, widen
from git_theta_btm.planes import Values
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import Span
from git_theta_btm.updates.low_rank import predict

WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
ROWS, COLUMNS, RANK = 31, 43, 5
SCALE = 2 / 3


def finite(dtype: str, count: int, seed: int) -> Values:
    return narrow(np.random.default_rng(seed).normal(0, 1, count), dtype)


def operands(dtype: str, factors: str) -> tuple[Values, Values, Values]:
    """A base, a left factor of shape (rows, rank) and a right one of shape (rank, columns)."""
    return finite(dtype, ROWS * COLUMNS, 0), finite(factors, ROWS * RANK, 1), finite(factors, RANK * COLUMNS, 2)


def by_hand(base: Values, left: Values, right: Values, dtypes: tuple[str, str]) -> Values:
    numbers = widen(base, dtypes[0]).tolist()
    rows = widen(left, dtypes[1]).reshape(ROWS, RANK).tolist()
    columns = widen(right, dtypes[1]).reshape(RANK, COLUMNS).tolist()
    results = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            total = 0.0
            for index in range(RANK):
                total += rows[row][index] * columns[index][column]
            results.append(numbers[row * COLUMNS + column] + SCALE * total)
    return narrow(np.array(results), dtypes[0])


def parameters(dtypes: tuple[str, str], **changes: Any) -> dict[str, Any]:
    fields = {"dtype": dtypes[0], "factors": dtypes[1], "columns": COLUMNS, "rank": RANK, "scale": SCALE.hex()}
    return {**fields, "transposed": False, **changes}


def sources(*values: Values) -> list[BytesSource]:
    return [BytesSource(value.tobytes()) for value in values]


def flipped(left: Values, right: Values) -> tuple[Values, Values]:
    """The factors of the transposed product: right transposed, left transposed."""
    return right.reshape(RANK, COLUMNS).T.ravel(), left.reshape(ROWS, RANK).T.ravel()


@pytest.mark.parametrize("dtype", WIDTH)
@pytest.mark.parametrize("factors", WIDTH)
@pytest.mark.parametrize("transposed", [False, True])
def test_the_product_of_a_plain_loop(dtype: str, factors: str, transposed: bool) -> None:  # noqa: FBT001
    base, left, right = operands(dtype, factors)
    pair = flipped(left, right) if transposed else (left, right)
    span = Span(0, base.nbytes, base.itemsize)
    values = predict(span, sources(base, *pair), parameters((dtype, factors), transposed=transposed))
    assert np.array_equal(values, by_hand(base, left, right, (dtype, factors)))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("first", "count"), [(0, 1), (COLUMNS - 1, 2), (COLUMNS, COLUMNS), (5, 3), (100, 1000), (ROWS * COLUMNS - 1, 1)]
)
def test_spans_that_cut_rows(first: int, count: int, transposed: bool) -> None:  # noqa: FBT001
    base, left, right = operands("BF16", "F32")
    whole = by_hand(base, left, right, ("BF16", "F32"))
    pair = flipped(left, right) if transposed else (left, right)
    span = Span(2 * first, 2 * count, 2)
    values = predict(span, sources(base, *pair), parameters(("BF16", "F32"), transposed=transposed))
    assert np.array_equal(values, whole[first : first + count])


@pytest.mark.parametrize("off", [0, 1])
def test_an_object_is_exact_whether_the_prediction_is_or_not(off: int) -> None:
    """A user's own arithmetic may round otherwise; what differs is the residual. Chunks of 1024 elements cut rows."""
    base, left, right = operands("F32", "F32")
    tensor = by_hand(base, left, right, ("F32", "F32"))
    tensor[::100] += np.uint32(off)
    header = Header("low_rank", 4, tensor.nbytes, parameters(("F32", "F32")), None, 4096)
    raw, bases = tensor.tobytes(), sources(base, left, right)
    parts = [encode_span(raw[span.offset :][: span.size], span, header, bases) for span in header.spans()]
    assert len(parts) == 2
    assert all(parts) if off else parts == [b"", b""]
    data = header.dumps() + b"".join(parts) + table([len(part) for part in parts])
    decoded = Decoded(BytesSource(data), bases)
    assert decoded.read(0, len(raw)) == raw
    assert decoded.read(4000, 200) == raw[4000:4200]


def test_infinities_and_nan_make_no_noise() -> None:
    base, left, right = operands("F16", "F64")
    left.view("<f8")[:3] = [math.inf, math.nan, 1e308]
    values = predict(Span(0, base.nbytes, 2), sources(base, left, right), parameters(("F16", "F64")))
    assert set(values[:COLUMNS].tolist()) == {0x7E00}


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 0},
        {"rank": -1},
        {"rank": RANK + 1},
        {"rank": 1.0},
        {"rank": 1025},
        {"columns": 0},
        {"columns": COLUMNS - 1},
        {"columns": (4 << 20) + 1},
        {"columns": 1 << 80},
        {"transposed": True},
    ],
)
def test_parameters_that_do_not_fit(change: dict[str, Any]) -> None:
    base, left, right = operands("F32", "F32")
    with pytest.raises((CorruptObject, ValueError)):
        predict(Span(0, base.nbytes, 4), sources(base, left, right), parameters(("F32", "F32"), **change))


def test_factors_that_are_too_short_or_too_large() -> None:
    base, left, right = operands("F32", "F32")
    huge = np.zeros((16 << 20) + 1, "<u4")
    for pair in ((left[:-RANK], right), (left[:-1], right), (left, right[:-1]), (left, huge), (huge, right)):
        with pytest.raises((CorruptObject, ValueError)):
            predict(Span(0, base.nbytes, 4), sources(base, *pair), parameters(("F32", "F32")))

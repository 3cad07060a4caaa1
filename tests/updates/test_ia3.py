"""IA3 predicts what a plain loop over Python's floats computes."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta_btm.encoded import Decoded, Header, encode_span, table
from git_theta_btm.errors import CorruptObject
from git_theta_btm.floats import narrow, widen
from git_theta_btm.planes import Values
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import Span
from git_theta_btm.updates.ia3 import predict

WIDTH = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
ROWS, COLUMNS = 37, 53


def finite(dtype: str, count: int, seed: int = 0) -> Values:
    return narrow(np.random.default_rng(seed).normal(0, 1, count), dtype)


def by_hand(base: Values, vector: Values, dtypes: tuple[str, str], axis: int) -> Values:
    numbers, scales = widen(base, dtypes[0]).tolist(), widen(vector, dtypes[1]).tolist()
    products = [number * scales[at // COLUMNS if axis == 0 else at % COLUMNS] for at, number in enumerate(numbers)]
    return narrow(np.array(products), dtypes[0])


def predicted(base: Values, vector: Values, dtypes: tuple[str, str], axis: int, span: Span | None = None) -> Values:
    sources = [BytesSource(base.tobytes()), BytesSource(vector.tobytes())]
    parameters = {"dtype": dtypes[0], "vector": dtypes[1], "columns": COLUMNS, "axis": axis}
    return predict(span or Span(0, base.nbytes, base.itemsize), sources, parameters)


@pytest.mark.parametrize("dtype", WIDTH)
@pytest.mark.parametrize("vector_dtype", WIDTH)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_products_of_a_plain_loop(dtype: str, vector_dtype: str, axis: int) -> None:
    base, vector = finite(dtype, ROWS * COLUMNS), finite(vector_dtype, (ROWS, COLUMNS)[axis], 1)
    expected = by_hand(base, vector, (dtype, vector_dtype), axis)
    assert np.array_equal(predicted(base, vector, (dtype, vector_dtype), axis), expected)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("first", "count"), [(0, 1), (COLUMNS - 1, 2), (COLUMNS, COLUMNS), (100, 1000), (1960, 1)])
def test_spans_that_cut_rows(axis: int, first: int, count: int) -> None:
    base, vector = finite("BF16", ROWS * COLUMNS), finite("F32", (ROWS, COLUMNS)[axis], 1)
    whole = by_hand(base, vector, ("BF16", "F32"), axis)
    part = predicted(base, vector, ("BF16", "F32"), axis, Span(2 * first, 2 * count, 2))
    assert np.array_equal(part, whole[first : first + count])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("off", [0, 1])
def test_an_object_is_exact_whether_the_prediction_is_or_not(axis: int, off: int) -> None:
    count = 3000 // COLUMNS * COLUMNS  # chunks of 2048 elements cut rows
    base, vector = finite("BF16", count), finite("BF16", (count // COLUMNS, COLUMNS)[axis], 1)
    tensor = predicted(base, vector, ("BF16", "BF16"), axis) + np.uint16(off)
    parameters = {"dtype": "BF16", "vector": "BF16", "columns": COLUMNS, "axis": axis}
    header = Header("ia3", 2, tensor.nbytes, parameters, None, 4096)
    sources = [BytesSource(base.tobytes()), BytesSource(vector.tobytes())]
    raw = tensor.tobytes()
    parts = [encode_span(raw[span.offset :][: span.size], span, header, sources) for span in header.spans()]
    assert len(parts) == 2
    assert (b"".join(parts) == b"") == (off == 0)
    data = header.dumps() + b"".join(parts) + table([len(part) for part in parts])
    assert Decoded(BytesSource(data), sources).read(0, len(raw)) == raw


@pytest.mark.parametrize(
    ("change", "vector"),
    [
        ({}, bytes(4 * COLUMNS - 4)),
        ({}, bytes(4 * COLUMNS + 4)),
        ({"axis": 0}, bytes(4 * ROWS - 4)),
        ({"axis": 2}, bytes(4 * COLUMNS)),
        ({"axis": -1}, bytes(4 * COLUMNS)),
        ({"columns": 0}, b""),
        ({"columns": -COLUMNS}, bytes(4 * COLUMNS)),
        ({"columns": 1.0}, bytes(4)),
        ({"axis": 0, "columns": 1}, bytes((64 << 20) + 4)),
    ],
)
def test_what_does_not_fit(change: dict[str, object], vector: bytes) -> None:
    parameters = {"dtype": "F32", "vector": "F32", "columns": COLUMNS, "axis": 1, **change}
    size = 4 * ROWS * COLUMNS
    with pytest.raises(CorruptObject):
        predict(Span(0, size, 4), [BytesSource(bytes(size)), BytesSource(vector)], parameters)

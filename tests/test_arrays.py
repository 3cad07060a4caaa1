from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.arrays import array, numpy_type, rows
from git_theta_btm.errors import ThetaError
from git_theta_btm.tensor import DTYPES, Tensor

SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)
BOUNDS = st.one_of(st.none(), st.integers(-6, 6))


@given(SHAPES, BOUNDS, BOUNDS, st.permutations(range(4)))
@settings(deadline=None, max_examples=200)
def test_rows_are_those_of_a_slice_whatever_the_order_in_memory(
    shape: tuple[int, ...], start: int | None, stop: int | None, order: list[int]
) -> None:
    axes = [axis for axis in order if axis < len(shape)]
    memory = np.arange(np.prod(shape), dtype="<u4").reshape([shape[axis] for axis in axes])
    whole = memory.transpose(np.argsort(axes))
    tensor = Tensor(DTYPES["U32"], shape, tuple(step // 4 for step in whole.strides) if whole.size else None)
    data = memory.tobytes()
    assert (array(data, tensor) == whole).all()
    part, offset = rows(tensor, start, stop)
    found = array(data[offset : offset + part.nbytes], part)
    assert found.shape == whole[start:stop].shape
    assert (found == whole[start:stop]).all()


@pytest.mark.parametrize("name", ["BF16", "F8_E4M3", "F64", "BOOL", "C64", "QINT8"])
def test_types_have_the_width_of_the_tensor(name: str) -> None:
    assert numpy_type(name).itemsize == DTYPES[name].size


@pytest.mark.parametrize("name", ["F4", "C32", "Q4_K", "BITS1X8"])
def test_types_that_numpy_has_not(name: str) -> None:
    with pytest.raises(ThetaError, match=name):
        numpy_type(name)


def test_what_has_no_rows() -> None:
    for tensor in (Tensor(DTYPES["F32"], ()), Tensor(DTYPES["Q8_0"], (4, 32))):
        with pytest.raises(ThetaError, match="no rows"):
            rows(tensor, 0, 1)

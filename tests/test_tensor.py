from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import FormatError
from git_theta_btm.tensor import DTYPES, MAX_BYTES, MAX_DIMS, Tensor

F32 = DTYPES["F32"]
ELEMENTWISE = sorted(name for name, dtype in DTYPES.items() if dtype.block == 1)
PACKED = sorted(name for name, dtype in DTYPES.items() if dtype.block > 1)

shapes = st.lists(st.integers(0, 300), max_size=5).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = draw(shapes)
    if dtype.block > 1:
        return Tensor(dtype, (*shape, draw(st.integers(0, 4)) * dtype.block))
    steps = st.lists(st.integers(0, 1000), min_size=len(shape), max_size=len(shape)).map(tuple)
    return Tensor(dtype, shape, draw(st.none() | steps))


@given(tensors())
@settings(deadline=None, max_examples=200)
def test_parse_inverts_str(tensor: Tensor) -> None:
    assert Tensor.parse(str(tensor)) == tensor


@given(st.text(max_size=40) | st.from_regex(r"\A[A-Z0-9_]{1,9}\[[0-9,:]{0,30}\]\Z"))
@settings(deadline=None, max_examples=200)
def test_parse_raises_nothing_but_a_format_error(text: str) -> None:
    try:
        tensor = Tensor.parse(text)
    except FormatError:
        return
    assert Tensor.parse(str(tensor)) == tensor


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("F32[]", 4),
        ("F32[768,3072]", 768 * 3072 * 4),
        ("F32[768,3072:1,768]", 768 * 3072 * 4),
        ("F32[2,2:100,1]", (100 + 1 + 1) * 4),
        ("F16[3:0]", 2),
        ("C128[5]", 80),
        ("I8[0,7]", 0),
        ("I8[0,4611686018427387904]", 0),
        ("Q4_0[3,64]", 3 * 2 * 18),
        ("F6_E2M3[8]", 6),
        ("BITS1X8[16]", 2),
    ],
)
def test_spelling_and_bytes(text: str, nbytes: int) -> None:
    tensor = Tensor.parse(text)
    assert str(tensor) == text
    assert tensor.nbytes == nbytes


@pytest.mark.parametrize(
    "text",
    [
        "F32", "F32[", "F32[1", "f32[1]", "NONE[1]", "F32[01]", "F32[-1]", "F32[1,]", "F32[,1]", "F32[1:]", "F32[:1]",
        "F32[1:1:1]", "F32[2,2:1]", "F32[2:1,1]", "F32[1] ", "F32[1]\n", "F32[٣]", "F32[1.0]", "", "[1]",
        "F32[" + "9" * 5000 + "]",
    ],
)  # fmt: skip
def test_parse_rejects(text: str) -> None:
    with pytest.raises(FormatError):
        Tensor.parse(text)


@given(shapes)
@settings(deadline=None, max_examples=200)
def test_contiguous_strides_are_no_strides(shape: tuple[int, ...]) -> None:
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    assert Tensor(F32, shape, strides) == Tensor(F32, shape)
    assert Tensor(F32, shape, strides).strides is None


def test_the_stride_of_a_single_element_has_no_say() -> None:
    assert Tensor(F32, (1, 4), (999, 1)) == Tensor(F32, (1, 4))


def test_the_strides_of_an_empty_tensor_have_no_say() -> None:
    assert Tensor(F32, (0, 4), (7, 9)) == Tensor(F32, (0, 4))


def test_packed_types_accept_contiguous_strides_and_no_others() -> None:
    assert Tensor(DTYPES["F4"], (2, 4), (4, 1)).nbytes == 4
    with pytest.raises(FormatError, match="strided"):
        Tensor(DTYPES["F4"], (4, 2), (1, 4))


@pytest.mark.parametrize("name", PACKED)
def test_packed_types_come_in_whole_blocks(name: str) -> None:
    dtype = DTYPES[name]
    assert Tensor(dtype, (3, dtype.block)).nbytes == 3 * dtype.size
    assert Tensor(dtype, (0,)).nbytes == 0
    with pytest.raises(FormatError, match="whole blocks"):
        Tensor(dtype, (dtype.block - 1,))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_scalar_is_one_element(name: str) -> None:
    assert Tensor(DTYPES[name], ()).nbytes == DTYPES[name].size


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((-1,), None),
        ((1,) * (MAX_DIMS + 1), None),
        ((MAX_BYTES,), None),
        ((MAX_BYTES,) * MAX_DIMS, None),
        ((MAX_BYTES + 1, 0), None),
        ((10**5000, 10**5000), None),
        ((-(10**5000),), None),
        ((2,), (-1,)),
        ((2, 2), (1,)),
        ((2,), (1, 1)),
        ((2,), (MAX_BYTES,)),
        ((2,), (10**5000,)),
    ],
)
def test_impossible_tensors(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> None:
    with pytest.raises(FormatError):
        Tensor(F32, shape, strides)


def test_the_largest_possible_tensor() -> None:
    assert Tensor(DTYPES["U8"], (MAX_BYTES,)).nbytes == MAX_BYTES


def test_names_of_the_table_are_its_keys() -> None:
    assert all(dtype.name == name and dtype.size > 0 and dtype.block > 0 for name, dtype in DTYPES.items())

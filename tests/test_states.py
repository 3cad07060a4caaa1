from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from git_theta_btm import formats
from git_theta_btm.errors import FormatError, ThetaError
from git_theta_btm.source import Source
from git_theta_btm.states import safetensors as source_of

TORCH = [
    "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip
BITS = torch.arange(64, dtype=torch.uint8)


def whole(source: Source) -> bytes:
    return source.read(0, source.size)


def every_type() -> dict[str, torch.Tensor]:
    """Two tensors of each type, by names that say nothing of their order in a file."""
    made = {}
    for index, name in enumerate(TORCH):
        bits = BITS % 2 if name == "bool" else BITS + index
        made[f"{99 - index}.w"] = bits.view(getattr(torch, name)).reshape(4, -1)
        made[f"é {index}\n"] = bits.clone().view(getattr(torch, name))[1:3]
    return made


def own(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"ü\n": '"\\\x01'}])
def test_it_is_the_file_that_the_library_writes(metadata: dict[str, str] | None) -> None:
    state = own(every_type())
    assert whole(source_of(state, metadata)) == safetensors.torch.save(state, metadata)


def test_numpy_has_the_same_file() -> None:
    state = {
        "f": np.arange(6, dtype="f4").reshape(2, 3),
        "big": np.arange(3, dtype=">i4"),
        "half": np.ones((3, 3), ml_dtypes.bfloat16),
        "eight": np.ones(5, ml_dtypes.float8_e4m3fn),
        "flag": np.array([True]),
        "none": np.zeros((0, 4), "c8"),
    }
    assert whole(source_of(state)) == safetensors.numpy.save(state)
    assert whole(source_of({"x": np.float32(3)})) == safetensors.numpy.save({"x": np.array(3, "f4")})
    assert whole(source_of({})) == safetensors.numpy.save({})
    turned = np.arange(6, dtype="f8").reshape(2, 3).T  # of which the library itself must be given a copy
    assert whole(source_of({"x": turned})) == safetensors.numpy.save({"x": turned.copy(order="C")})


def test_four_bits_are_two_numbers_in_a_byte() -> None:
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no such type")
    state = {"w": BITS.reshape(8, 8).clone().view(torch.float4_e2m1fn_x2)}
    assert whole(source_of(state)) == safetensors.torch.save(state)


def test_metadata_has_one_spelling() -> None:
    words = {name: name for name in "cab"}
    assert whole(source_of({}, words)) == whole(source_of({}, dict(reversed(words.items()))))
    text = whole(source_of({}, words))
    assert list(json.loads(text[8:])["__metadata__"]) == ["a", "b", "c"]


def test_nothing_is_copied() -> None:
    array, tensor = np.zeros(1000, "f4"), torch.zeros(1000, dtype=torch.bfloat16, requires_grad=True)
    source = source_of({"array": array, "tensor": tensor})
    array += 1
    with torch.no_grad():
        tensor += 1
    changed = {"array": array, "tensor": tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)}
    assert whole(source) == safetensors.numpy.save(changed)


def test_views_that_do_not_overlap_are_tensors_like_others() -> None:
    storage = torch.randn(100)
    state = {"left": storage[:50], "right": storage[50:], "empty": storage[10:10]}
    assert whole(source_of(state)) == safetensors.torch.save(state)
    array = np.arange(10.0)
    assert whole(source_of({"a": array, "b": array[2:]})) == safetensors.numpy.save({"a": array, "b": array[2:]})


STORAGE = torch.randn(4, 4)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": STORAGE, "b": STORAGE}, "'a' and 'b' share memory.*clone"),
        ({"a": STORAGE[1:], "x": STORAGE[3:], "b": STORAGE[:2]}, "'b' and 'a' share memory"),
        ({"a": STORAGE.t()}, "'a' is not contiguous.*contiguous"),
        ({"a": STORAGE.to_sparse()}, r"'a' is not contiguous.*to_dense"),
        ({"a": torch.zeros(3, device="meta")}, "'a': .*meta"),
        ({"a": torch.zeros(3, dtype=torch.complex128)}, "'a': safetensors has no type complex128"),
        ({"a": np.zeros(3, "c16")}, "'a': safetensors has no type complex128"),
        ({"a": np.array(["x"])}, "'a': safetensors has no type str"),
        ({"a": np.array([{}])}, "'a': safetensors has no type object"),
        ({"a": [1.0]}, "'a' is neither a NumPy array nor a torch tensor but list"),
        ({1: STORAGE}, "cannot be called 1"),
        ({"__metadata__": STORAGE}, "cannot be called '__metadata__'"),
        ({"\ud800": STORAGE}, "no text"),
    ],
)
def test_what_safetensors_does_not_store_is_one_error(state: Any, words: str) -> None:
    with pytest.raises(ThetaError, match=words) as caught:
        source_of(state)
    assert "\n" not in str(caught.value)


def test_metadata_are_texts() -> None:
    with pytest.raises(ThetaError, match="texts by name"):
        source_of({}, {"step": 3})  # type: ignore[dict-item]


SAMPLE = source_of({f"h.{index}": np.arange(index * 3, dtype="u1") for index in range(9)})
DATA = whole(SAMPLE)


@given(st.integers(-3, len(DATA) + 3), st.integers(-1, len(DATA) + 3))
def test_any_range_can_be_read(start: int, size: int) -> None:
    if min(start, size) >= 0 and start + size <= len(DATA):
        buffer = bytearray(size)
        SAMPLE.readinto(start, memoryview(buffer))
        assert SAMPLE.read(start, size) == DATA[start : start + size] == buffer
    else:
        with pytest.raises(FormatError):
            SAMPLE.read(start, size)


def test_the_filter_finds_every_tensor() -> None:
    name, located = formats.locate(source_of(own(every_type())))
    assert (name, len(located)) == ("safetensors", 2 * len(TORCH))

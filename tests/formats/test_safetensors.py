from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm import formats
from git_theta_btm.errors import FormatError
from git_theta_btm.formats import Located
from git_theta_btm.formats import safetensors as module
from git_theta_btm.source import BytesSource
from git_theta_btm.tensor import DTYPES, Tensor


def locate(data: bytes) -> dict[str, Located]:
    kind, found = formats.locate(BytesSource(data))
    assert kind == "safetensors"
    return {item.name: item for item in found}


def container(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[Any], begin: Any, end: Any, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_numpy_arrays() -> None:
    arrays = {
        name: np.arange(12).reshape(3, 4).astype(name)
        for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8", "bool")
    }
    arrays |= {"scalar": np.array(1.5, "f4"), "empty": np.zeros((0, 3), "f4"), "名前/ü\n": np.ones(2, "i1")}
    data = safetensors.numpy.save(arrays, {"format": "np"})
    found = locate(data)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].tensor.shape == array.shape
        assert data[found[name].offset : found[name].end] == array.tobytes()


@pytest.mark.parametrize(
    ("torch_name", "name"),
    [
        ("bfloat16", "BF16"),
        ("float16", "F16"),
        ("float8_e4m3fn", "F8_E4M3"),
        ("float8_e5m2", "F8_E5M2"),
        ("float8_e8m0fnu", "F8_E8M0"),
        ("complex64", "C64"),
        ("bool", "BOOL"),
        ("uint64", "U64"),
    ],
)
def test_torch_types(torch_name: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    bits = torch.arange(48, dtype=torch.uint8) % 2
    tensor = bits.view(getattr(torch, torch_name)).reshape(2, -1)
    data = save({"weight": tensor})
    found = locate(data)["weight"]
    assert found.tensor == Tensor(DTYPES[name], tuple(tensor.shape))
    assert data[found.offset : found.end] == bytes(bits.tolist())


def test_a_model_of_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    found, state = locate(data), model.state_dict()
    assert found.keys() == state.keys() - {"lm_head.weight"}  # tied, saved once
    for name, item in found.items():
        stored = torch.frombuffer(bytearray(data[item.offset : item.end]), dtype=torch.float32)
        assert torch.equal(stored.reshape(item.tensor.shape), state[name])


def test_no_tensors() -> None:
    assert locate(safetensors.numpy.save({})) == {}
    assert locate(container({"__metadata__": {"format": "pt"}})) == {}


def test_metadata_and_tensors_in_any_order() -> None:
    header = {"b": entry([2], 4, 6), "__metadata__": {"k": "v"}, "a": entry([4], 0, 4)}
    data = container(header, b"aaaabb")
    found = locate(data)
    assert {name: data[item.offset : item.end] for name, item in found.items()} == {"a": b"aaaa", "b": b"bb"}


def test_ranges_may_overlap_inside_the_file() -> None:
    found = locate(container({"a": entry([4], 0, 4), "b": entry([4], 2, 6)}, bytes(6)))
    assert found["b"].offset - found["a"].offset == 2


def test_packed_floats() -> None:
    data = container({"a": entry([2, 4], 0, 4, "F4"), "b": entry([4], 4, 7, "F6_E3M2")}, bytes(7))
    assert [str(item.tensor) for item in locate(data).values()] == ["F4[2,4]", "F6_E3M2[4]"]


HUGE = b"9" * 4300
HOSTILE = {
    "header beyond the file": struct.pack("<Q", 100) + b"{}",
    "header of exabytes": struct.pack("<Q", 1 << 63) + b"{}",
    "empty header": container(b"") + b"{",
    "no object": container(b"{") + b"}",
    "text after the object": container(b"{}x"),
    "deep nesting": container(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "not UTF-8": container(b'{"\xff": 1}'),
    "UTF-16": container("{}".encode("utf-16-le")),
    "half a surrogate pair": container(rb'{"\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "a key twice": container(b'{"a":%b,"a":%b}' % ((json.dumps(entry([1], 0, 1)).encode(),) * 2), b"x"),
    "a field twice": container(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "integer of 5000 digits": container(b'{"a":{"dtype":"U8","shape":[%b],"data_offsets":[0,0]}}' % (b"9" * 5000)),
    "integers of 4300 digits": container(
        b'{"a":{"dtype":"U8","shape":[%b,%b],"data_offsets":[-%b,%b]}}' % (HUGE, HUGE, HUGE, HUGE)
    ),
    "an end of 4300 digits": container(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[-%b,%b]}}' % (HUGE, HUGE)),
    "beyond the file": container({"a": entry([4], 0, 4)}, b"123"),
    "start beyond the file": container({"a": entry([0], 10, 10)}, b"123"),
    "before the data": container({"a": entry([4], -4, 0)}, b"1234"),
    "ends before it starts": container({"a": entry([1], 4, 3)}, b"1234"),
    "fewer bytes than elements": container({"a": entry([4], 0, 3)}, b"1234"),
    "negative dimension": container({"a": entry([-1, -4], 0, 4)}, b"1234"),
    "floats": container({"a": entry([4.0], 0, 4)}, b"1234"),
    "float offsets": container({"a": entry([4], 0.0, 4.0)}, b"1234"),
    "not a number": container(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,0]}}'),
    "booleans": container({"a": entry([True], 0, 1)}, b"1"),
    "boolean offsets": container({"a": entry([1], begin=False, end=True)}, b"1"),
    "a shape in text": container({"a": {"dtype": "U8", "shape": "", "data_offsets": [0, 1]}}, b"1"),
    "a shape in an object": container({"a": {"dtype": "U8", "shape": {}, "data_offsets": [0, 1]}}, b"1"),
    "no shape": container({"a": {"dtype": "U8", "data_offsets": [0, 0]}}),
    "three offsets": container({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0, 0]}}),
    "unknown type": container({"a": entry([0], 0, 0, "F128")}),
    "a type of another format": container({"a": entry([32], 0, 18, "Q4_0")}, bytes(18)),
    "a list for a type": container({"a": entry([0], 0, 0, ["U8"])}),
    "a list for an entry": container({"a": []}),
    "null for an entry": container({"a": None}),
    "absurd shape": container({"a": entry([1 << 62, 1 << 62], 0, 1 << 124)}),
    "absurd rank": container({"a": entry([1] * 100_000, 0, 1)}, b"1"),
    "half a block": container({"a": entry([3], 0, 1, "F4")}, b"12"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_headers_are_opaque(data: bytes) -> None:
    assert formats.locate(BytesSource(data)) == (formats.OPAQUE, [])


def test_the_header_limit_is_the_reference_implementations() -> None:
    with pytest.raises(FormatError, match="header of"):
        module.locate(BytesSource(struct.pack("<Q", module.MAX_HEADER + 1) + b"{}"))


SEED = safetensors.numpy.save({"a": np.zeros((2, 3), "f4"), "b": np.ones(5, "i1"), "c": np.zeros((0, 2), "f8")})
mutations = st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.binary(min_size=1, max_size=4)), max_size=6)


@given(mutations, st.integers(0, len(SEED)))
@settings(deadline=None, max_examples=200)
def test_mutations_locate_inside_the_file_or_nothing(changes: list[tuple[int, bytes]], length: int) -> None:
    data = bytearray(SEED)
    for at, new in changes:
        data[at : at + len(new)] = new
    for size in (len(data), length):
        kind, found = formats.locate(BytesSource(data[:size]))
        assert all(0 <= item.offset <= item.end <= size for item in found)
        assert kind == "safetensors" or not found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(sorted(DTYPES)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), st.fixed_dictionaries(
    {"dtype": json_values | st.just("U8"), "shape": json_values, "data_offsets": json_values | st.just([0, 4])}
), max_size=3))  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_any_header_locates_inside_the_file_or_nothing(header: dict[str, Any]) -> None:
    data = container(header, bytes(16))
    _, found = formats.locate(BytesSource(data))
    assert all(0 <= item.offset <= item.end <= len(data) for item in found)

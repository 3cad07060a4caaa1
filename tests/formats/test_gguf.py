from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm import formats
from git_theta_btm.errors import FormatError
from git_theta_btm.formats import Located
from git_theta_btm.formats import gguf as module
from git_theta_btm.source import BytesSource
from git_theta_btm.tensor import DTYPES, Tensor

gguf = pytest.importorskip("gguf")

U32, STRING, ARRAY = 4, 8, 9


def locate(data: bytes) -> dict[str, Located]:
    kind, found = formats.locate(BytesSource(data))
    assert kind == "gguf"
    return {item.name: item for item in found}


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, values: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + values


def info(name: bytes, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def container(pairs: list[bytes], infos: list[bytes], data: bytes = bytes(64), align: int = 32) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(pairs)) + b"".join(pairs + infos)
    return head + bytes(-len(head) % align) + data


def write(path: Path, *, alignment: int | None = None, endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> bytes:
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_array("tokenizer.ggml.tokens", [f"token {number}" for number in range(1000)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 1000)
    writer.add_string("general.description", "ü" * 1000)
    writer.add_bool("some.bool", val=True)
    writer.add_float64("some.double", 1.0)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 256)).astype("f4")
    writer.add_tensor("f32.weight", weights)
    writer.add_tensor("f16.weight", weights[:, :5].astype("f2"))
    writer.add_tensor("i8.vector", np.arange(7, dtype="i1"))
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.BF16):
        writer.add_tensor(f"{kind.name}.weight", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("alignment", [None, 8, 256])
@pytest.mark.parametrize("version", [2, 3])
def test_a_file_of_the_reference_writer(tmp_path: Path, alignment: int | None, version: int) -> None:
    path = tmp_path / "model.gguf"
    data = bytearray(write(path, alignment=alignment))
    data[4:8] = struct.pack("<I", version)  # the two versions differ in nothing but the number
    found = locate(bytes(data))
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        item = found[name]
        assert item.offset == tensor.data_offset
        assert item.tensor.dtype.name == tensor.tensor_type.name
        assert item.tensor.shape == tuple(tensor.shape.tolist()[::-1])
        assert data[item.offset : item.end] == tensor.data.tobytes()
    assert found["f32.weight"].tensor == Tensor(DTYPES["F32"], (3, 256))


@pytest.mark.parametrize("kind", gguf.GGML_QUANT_SIZES, ids=lambda kind: kind.name)
def test_types_and_block_sizes_are_those_of_ggml(kind: gguf.GGMLQuantizationType) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if kind is gguf.GGMLQuantizationType.Q8_1:
        size = 36  # ggml-common.h asserts two halves and 32 bytes; the Python package still counts two floats
    data = container([], [info(b"w", (2 * block, 3), int(kind))], bytes(6 * size))
    item = locate(data)["w"]
    assert (item.tensor.dtype.name, item.tensor.dtype.block, item.tensor.dtype.size) == (kind.name, block, size)
    assert item.end == len(data)


def test_every_type_of_the_table_exists() -> None:
    assert {DTYPES[kind.name] for kind in gguf.GGML_QUANT_SIZES} == set(module._TYPES.values())


def test_the_other_byte_order_is_opaque(tmp_path: Path) -> None:
    data = write(tmp_path / "model.gguf", endian=gguf.GGUFEndian.BIG)
    assert formats.locate(BytesSource(data)) == (formats.OPAQUE, [])


def test_a_file_without_tensors() -> None:
    assert locate(container([], [], b"")) == {}


def test_scalars_and_empty_tensors() -> None:
    found = locate(container([], [info(b"scalar", ()), info(b"empty", (0, 4), 0, 32)], bytes(32)))
    assert [str(item.tensor) for item in found.values()] == ["F32[]", "F32[4,0]"]


def test_arrays_in_arrays_are_stepped_over() -> None:
    nested = array(ARRAY, 2, array(STRING, 2, text(b"a") + text(b"")) + array(U32, 1, bytes(4)))
    assert locate(container([pair(b"k", ARRAY, nested)], [info(b"w", (16,))])).keys() == {"w"}


def test_a_long_header_crosses_windows() -> None:
    strings = [b"x" * (number % 50) for number in range(40_000)]
    pairs = [pair(b"tokens", ARRAY, array(STRING, len(strings), b"".join(map(text, strings))))]
    pairs.append(pair(b"blob", STRING, text(bytes(3 * module.WINDOW))))
    data = container(pairs, [info(b"w", (16,), 0)], bytes(range(64)))
    item = locate(data)["w"]
    assert data[item.offset : item.end] == bytes(range(64))


ALIGNMENT = b"general.alignment"
W = info(b"w", (16,))
HOSTILE = {
    "magic only": b"GGUF",
    "version 1": b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
    "version 4": b"GGUF" + struct.pack("<IQQ", 4, 0, 0),
    "tensors without end": b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 0),
    "pairs without end": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63),
    "unknown value type": container([pair(b"k", 13, bytes(8))], [W]),
    "key beyond the file": container([struct.pack("<Q", 1 << 40) + b"k"], [W]),
    "string beyond the file": container([pair(b"k", STRING, struct.pack("<Q", (1 << 64) - 1))], [W]),
    "array beyond the file": container([pair(b"k", ARRAY, array(U32, (1 << 64) - 1))], [W]),
    "strings without end": container([pair(b"k", ARRAY, array(STRING, (1 << 64) - 1))], [W]),
    "arrays without end": container([pair(b"k", ARRAY, array(ARRAY, (1 << 64) - 1))], [W]),
    "deep nesting": container([pair(b"k", ARRAY, array(ARRAY, 1) * 10_000 + array(U32, 0))], [W]),
    "unknown item type": container([pair(b"k", ARRAY, array(99, 1))], [W]),
    "alignment 0": container([pair(ALIGNMENT, U32, struct.pack("<I", 0))], [W]),
    "alignment 3": container([pair(ALIGNMENT, U32, struct.pack("<I", 3))], [W]),
    "alignment in text": container([pair(ALIGNMENT, STRING, text(b"32"))], [W]),
    "alignment twice": container([pair(ALIGNMENT, U32, struct.pack("<I", 32))] * 2, [W]),
    "alignment beyond the file": container([pair(ALIGNMENT, U32, struct.pack("<I", 1 << 31))], [W]),
    "name twice": container([], [W, W]),
    "name of no text": container([], [info(b"\xff", (16,))]),
    "name without end": container([], [struct.pack("<Q", module.MAX_NAME + 1) + bytes(1 << 17)]),
    "five dimensions": container([], [info(b"w", (1,) * 5)]),
    "a billion dimensions": container([], [text(b"w") + struct.pack("<I", 1 << 30)]),
    "absurd shape": container([], [info(b"w", ((1 << 64) - 1,) * 4)]),
    "unknown type": container([], [info(b"w", (16,), 4)]),
    "unaligned": container([], [info(b"w", (4,), 0, 16)]),
    "beyond the file": container([], [info(b"w", (17,))]),
    "offset beyond the file": container([], [info(b"w", (0,), 0, 1 << 63)]),
    "rows of half blocks": container([], [info(b"w", (16, 2), 8)]),
    "a block without a row": container([], [info(b"w", (), 8)]),
    "cut in the descriptions": container([], [W, W], b"")[:70],
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_headers_are_opaque(data: bytes) -> None:
    assert formats.locate(BytesSource(data)) == (formats.OPAQUE, [])


def test_a_header_longer_than_any_is_refused_before_it_is_read() -> None:
    jump = pair(b"k", ARRAY, array(0, module.MAX_HEADER))

    class Sparse(BytesSource):
        size = 1 << 40

        def read(self, offset: int, size: int) -> bytes:
            return super().read(offset, min(size, len(data) - offset)).ljust(size, b"\0")

    data = container([jump, jump], [W])
    with pytest.raises(FormatError, match="header"):
        module.locate(Sparse(data))


def test_a_large_vocabulary_takes_a_fraction_of_a_second() -> None:
    tokens = b"".join(text(b"token%d" % number) for number in range(150_000))
    data = container([pair(b"tokens", ARRAY, array(STRING, 150_000, tokens))], [W])
    start = time.perf_counter()
    assert locate(data).keys() == {"w"}
    assert time.perf_counter() - start < 2


@pytest.fixture(scope="module")
def seed() -> bytes:
    pairs = [
        pair(b"general.name", STRING, text(b"n")),
        pair(ALIGNMENT, U32, struct.pack("<I", 64)),
        pair(b"a", ARRAY, array(STRING, 2, text(b"x") + text(b"y"))),
    ]
    return container(pairs, [info(b"v", (4, 2)), info(b"w", (32, 2), 8, 64)], bytes(132), align=64)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_mutations_locate_inside_the_file_or_nothing(seed: bytes, data: st.DataObject) -> None:
    assert len(locate(seed)) == 2
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(seed) - 8))
        changed[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8) | st.just(bytes(seed[at : at + 7]) + b"\1"))
    for size in (len(seed), data.draw(st.integers(0, len(seed)))):
        kind, found = formats.locate(BytesSource(changed[:size]))
        assert all(0 <= item.offset <= item.end <= size for item in found)
        assert kind == "gguf" or not found

"""``.npy`` and ``.npz`` as NumPy writes them, and as it never would."""

from __future__ import annotations

import io
import zipfile
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.format import write_array

from git_theta_btm.errors import FormatError
from git_theta_btm.formats import Format, Located, locate, npy, npz
from git_theta_btm.source import BytesSource

TYPES = {
    "b1": "BOOL", "i1": "I8", "u1": "U8", "i2": "I16", "u2": "U16", "i4": "I32", "u4": "U32", "i8": "I64", "u8": "U64",
    "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64", "c16": "C128",
}  # fmt: skip
STRANGE = {
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "objects": np.array([None, {}], dtype=object),
    "structured": np.zeros(2, dtype=[("x", "<f4"), ("y, (", "<i2")]),
    "times": np.array(["2024-01-01"], dtype="M8[D]"),
    "big-endian": np.arange(3, dtype=">f4"),
}
ARRAYS = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "transposed": np.arange(6, dtype=np.int16).reshape(2, 3).T,
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "scalar": np.array(1.5, dtype=np.float16),
    "empty": np.zeros((0, 3), dtype=np.uint8),
    "strided": np.arange(20.0)[::3],
    "noncontiguous": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
}


def npy_file(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    write_array(file, array, version)
    return file.getvalue()


def npz_file(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


def elements(data: bytes, item: Located) -> np.ndarray:
    """The array that the located bytes make with the located shape and strides."""
    dtype = next(np.dtype("<" + code) for code, name in TYPES.items() if name == item.tensor.dtype.name)
    memory = np.frombuffer(data[item.offset : item.end], dtype)
    if item.tensor.strides is None:
        return memory.reshape(item.tensor.shape)
    return np.lib.stride_tricks.as_strided(memory, item.tensor.shape, [dtype.itemsize * s for s in item.tensor.strides])


def header(data: bytes, old: bytes, new: bytes) -> bytes:
    """``data`` with ``old`` in its header replaced, of the same length."""
    at = data.index(b"\n")
    return data[:at].replace(old, new).ljust(at)[:at] + data[at:]


@pytest.mark.parametrize("version", [None, (1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_found(name: str, version: tuple[int, int] | None) -> None:
    data = npy_file(ARRAYS[name], version)
    container, (item,) = locate(BytesSource(data))
    assert (container, item.name) == ("npy", "array")
    assert item.tensor.shape == ARRAYS[name].shape
    assert item.end == len(data)
    assert np.array_equal(elements(data, item), ARRAYS[name])


@pytest.mark.parametrize("code", TYPES)
def test_every_element_type(code: str) -> None:
    array = np.arange(4).astype("<" + code)
    data = npy_file(array)
    (item,) = npy.locate(BytesSource(data))
    assert item.tensor.dtype.name == TYPES[code]
    assert data[item.offset : item.end] == array.tobytes()


def test_arrays_of_an_archive_are_called_as_they_were_saved() -> None:
    data = npz_file(**ARRAYS)
    container, found = locate(BytesSource(data))
    assert container == "npz"
    assert [item.name for item in found] == list(ARRAYS)
    for item in found:
        assert np.array_equal(elements(data, item), ARRAYS[item.name])


@pytest.mark.parametrize("name", STRANGE)
def test_elements_that_no_tensor_has(name: str) -> None:
    with pytest.raises(FormatError, match="elements"):
        npy.locate(BytesSource(npy_file(STRANGE[name])))
    found = npz.locate(BytesSource(npz_file(strange=STRANGE[name], plain=np.ones(2))))
    assert [item.name for item in found] == ["plain"]


def test_other_members_and_compressed_ones_are_passed_over() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("a.npy", npy_file(np.ones(50)), zipfile.ZIP_DEFLATED)
        target.writestr("../../b.npy", npy_file(np.ones(50)))
        target.writestr("readme", b"text")
    assert [item.name for item in npz.locate(BytesSource(file.getvalue()))] == ["../../b"]


def test_an_archive_of_nothing_that_can_be_located() -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.ones(50))
    for data in (packed.getvalue(), npz_file(), npz_file(a=STRANGE["objects"])):
        with pytest.raises(FormatError, match="without"):
            npz.locate(BytesSource(data))
        assert locate(BytesSource(data)) == ("opaque", [])


def test_a_header_of_python_2() -> None:
    data = npy_file(np.arange(3.0))
    (item,) = npy.locate(BytesSource(header(data, b"(3,), }", b"(3L,), }")))
    assert item.tensor.shape == (3,)


MALFORMED = {
    "more elements than bytes": (b"(6,)", b"(7,)"),
    "negative": (b"(6,)", b"(-6,)"),
    "huge": (b"(6,)", b"(9999999999999999999,9999999999999999999)"),
    "longer than any number": (b"(6,)", b"(" + b"9" * 20 + b",)"),
    "no tuple": (b"(6,)", b"[6,]"),
    "an expression": (b"(6,)", b"(2+4,)"),
    "a call": (b"(6,)", b"(f(),)"),
    "no order": (b"False", b"None"),
    "another key": (b"'shape'", b"'shade'"),
    "unclosed": (b"}", b" "),
    "unquoted": (b"'<f8'", b"<f8"),
    "escaped": (b"'<f8'", b"'\\x3cf8'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_headers(name: str) -> None:
    with pytest.raises(FormatError):
        npy.locate(BytesSource(header(npy_file(np.arange(6.0)), *MALFORMED[name])))


@pytest.mark.parametrize(
    "filler",
    [b" ", b"1", b"1,", b"1, ", b"(", b"'", b"[]", b"] ", b"L"],
)
@pytest.mark.parametrize(
    "start", [b"{", b"{'descr':'<f8','fortran_order':False,'shape':(", b"{'descr':[", b"{'descr':'"]
)
def test_hostile_headers_take_linear_time(start: bytes, filler: bytes) -> None:
    text = (start + filler * 70_000)[:65_536]
    with pytest.raises(FormatError):
        npy.locate(BytesSource(b"\x93NUMPY\2\0" + len(text).to_bytes(4, "little") + text))


def test_a_file_that_was_cut_off() -> None:
    for data, module in ((npy_file(np.arange(6.0)), npy), (npz_file(a=np.arange(6.0)), npz)):
        for size in range(len(data)):
            with pytest.raises(FormatError):
                module.locate(BytesSource(data[:size]))


def test_a_header_longer_than_any() -> None:
    with pytest.raises(FormatError):
        npy.locate(BytesSource(b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(100)))


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.sampled_from([npy, npz]))
def test_files_with_some_bytes_changed(random: Random, module: Format) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    data = bytearray(npz_file(a=array, b=array) if module is npz else npy_file(array))
    for _ in range(random.randint(1, 3)):
        data[random.randrange(len(data))] = random.choice([0, 32, 40, 44, 57, random.randrange(256)])
    try:
        found = module.locate(BytesSource(data))
    except FormatError:
        return
    assert found
    assert all(0 <= item.offset <= item.end <= len(data) for item in found)

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm import formats
from git_theta_btm.errors import FormatError
from git_theta_btm.formats import Located
from git_theta_btm.formats import hdf5 as module
from git_theta_btm.source import BytesSource

h5py = pytest.importorskip("h5py")

LIBVERS = ["earliest", "v108", "v110", "v112", "v114", "latest"]


def build(fill: Callable[[Any], None], libver: str = "earliest", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=(libver, "latest"), **options) as file:
        fill(file)
    return buffer.getvalue()


def locate(data: bytes) -> dict[str, Located]:
    """The tensors of a file, each checked against the bytes that h5py reads under its name."""
    kind, found = formats.locate(BytesSource(data))
    assert kind == "hdf5"
    with h5py.File(io.BytesIO(data)) as file:
        for item in found:
            dataset = file[item.name]
            assert item.tensor.shape == dataset.shape
            assert data[item.offset : item.end] == dataset[()].tobytes()
    return {item.name: item for item in found}


def keras(file: Any, layers: int = 3) -> None:
    """The layout of ``model.save("model.h5")``: attributes everywhere, a layer's name twice in the path."""
    rng = np.random.default_rng(0)
    file.attrs["keras_version"] = "2.15.0"
    file.attrs["model_config"] = "x" * 5000
    names = [f"dense_{number}" for number in range(layers)]
    weights = file.create_group("model_weights")
    weights.attrs["layer_names"] = [name.encode() for name in names]
    for name in names:
        group = weights.create_group(name)
        group.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
        group[f"{name}/kernel:0"] = rng.standard_normal((3, 4)).astype("f4")
        group[f"{name}/bias:0"] = rng.standard_normal(4).astype("f4")


@pytest.mark.parametrize("layers", [0, 1, 8, 150, 600])
def test_weights_of_keras(layers: int) -> None:
    found = locate(build(lambda file: keras(file, layers)))
    names = {f"model_weights/dense_{n}/dense_{n}/{part}:0" for n in range(layers) for part in ("kernel", "bias")}
    assert found.keys() == names


@pytest.mark.parametrize("libver", LIBVERS)
def test_all_object_headers(libver: str) -> None:
    assert len(locate(build(lambda file: keras(file, 5), libver))) == 10


@pytest.mark.parametrize("track_order", [False, True])
def test_order_of_creation_and_of_change(track_order: bool) -> None:  # noqa: FBT001
    def fill(file: Any) -> None:
        for name in "edcba":
            file.create_group(name, track_order=track_order).create_dataset("w", data=[1.0], track_times=True)

    assert len(locate(build(fill, track_order=track_order))) == 5


TYPES = {
    "f2": "F16", "f4": "F32", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64",
    "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "?": "BOOL", "c8": "C64", "c16": "C128",
}  # fmt: skip


@pytest.mark.parametrize("libver", LIBVERS)
def test_types(libver: str) -> None:
    def fill(file: Any) -> None:
        for name in TYPES:
            file.create_group(name)["data"] = np.arange(6).reshape(2, 3).astype(name)

    def grouped(file: Any) -> None:  # eight links at most, or the newer formats keep them in a heap
        for start in range(0, len(TYPES), 7):
            group = file.create_group(f"group {start}")
            for name in list(TYPES)[start : start + 7]:
                group[name.replace("?", "bool")] = np.arange(6).reshape(2, 3).astype(name)

    found = locate(build(fill if libver == "earliest" else grouped, libver))
    assert sorted(str(item.tensor) for item in found.values()) == sorted(f"{name}[2,3]" for name in TYPES.values())


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ((7, 3, 4, 0, 3, 7, 1), "F8_E4M3"),
        ((7, 2, 5, 0, 2, 15, 1), "F8_E5M2"),
        ((15, 7, 8, 0, 7, 127, 2), "BF16"),
    ],
)
def test_small_floats(fields: tuple[int, ...], name: str) -> None:
    sign, exponent_at, exponent, mantissa_at, mantissa, bias, size = fields

    def fill(file: Any) -> None:
        kind = h5py.h5t.IEEE_F16LE.copy()
        kind.set_fields(sign, exponent_at, exponent, mantissa_at, mantissa)
        kind.set_ebias(bias)
        kind.set_precision(8 * size)
        kind.set_size(size)
        dataset = h5py.h5d.create(file.id, b"w", kind, h5py.h5s.create_simple((4,)))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4 * size, dtype="u1"), mtype=kind)

    data = build(fill)
    kind, found = formats.locate(BytesSource(data))
    assert [str(item.tensor) for item in found] == [f"{name}[4]"]
    assert data[found[0].offset : found[0].end] == bytes(range(4 * size))


def test_shapes() -> None:
    def fill(file: Any) -> None:
        file["scalar"] = np.float32(3)
        file["empty"] = np.zeros((0, 3), "f4")
        file["deep"] = np.arange(32, dtype="i2").reshape((1, 2, 1, 2, 2, 2, 1, 2))

    found = locate(build(fill))
    assert sorted(str(item.tensor) for item in found.values()) == ["F32[0,3]", "F32[]", "I16[1,2,1,2,2,2,1,2]"]


def unlocatable(file: Any) -> None:
    rows = np.arange(1000, dtype="f4").reshape(100, 10)
    file["w"] = rows
    group = file.create_group("other")
    group.create_dataset("chunked", data=rows, chunks=(10, 10))
    group.create_dataset("gzip", data=rows, chunks=(10, 10), compression="gzip")
    group.create_dataset("never written", (4,), "f4")
    group["null"] = h5py.Empty("f4")
    group["big-endian"] = rows.astype(">f4")
    group["big-endian int"] = np.arange(4, dtype=">i4")
    group["strings"] = ["a", "bc"]
    more = file.create_group("more")
    more["fixed strings"] = np.array([b"a", b"bc"])
    more["records"] = np.zeros(3, [("a", "i4"), ("b", "f4")])
    more["pairs of integers"] = np.zeros(3, [("r", "i4"), ("i", "i4")])
    more["uneven"] = np.zeros(3, [("r", "f4"), ("i", "f8")])
    more["swapped"] = np.zeros(3, [("i", "f4"), ("r", "f4")])
    more["nested"] = np.zeros(3, [("r", "c8"), ("i", "c8")])
    more["arrays"] = np.zeros(3, [("r", "f4", (2,)), ("i", "f4", (2,))])
    last = file.create_group("last")
    last.create_dataset("enumeration", (4,), h5py.enum_dtype({"NO": 0, "YES": 1}, "i1"))[:] = 1
    last.create_dataset("wide", (4,), h5py.enum_dtype({"FALSE": 0, "TRUE": 1}, "i4"))[:] = 1
    last.create_dataset("three", (4,), h5py.enum_dtype({"FALSE": 0, "TRUE": 1, "MAYBE": 2}, "i1"))[:] = 1
    last["opaque"] = np.array([b"abcd"], "V4")
    file["named type"] = np.dtype("f4")
    file.create_dataset("of a named type", data=rows, dtype=file["named type"])


@pytest.mark.parametrize("libver", LIBVERS)
def test_what_is_not_one_piece_of_numbers_is_not_located(libver: str) -> None:
    assert locate(build(unlocatable, libver)).keys() == {"w"}


def test_other_layouts(tmp_path: Any) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["w"] = np.arange(8.0)
        file.create_dataset("external", (4,), "f4", external=[("other.bin", 0, 16)])
        virtual = h5py.VirtualLayout((8,), "f8")
        virtual[:] = h5py.VirtualSource(".", "w", (8,))
        file.create_virtual_dataset("virtual", virtual)
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), compact)
    assert locate(path.read_bytes()).keys() == {"w"}


@pytest.mark.parametrize("libver", LIBVERS)
def test_links(libver: str) -> None:
    def fill(file: Any) -> None:
        file["a/w"] = np.arange(4.0)
        file["hard"] = file["a/w"]
        file["soft"] = h5py.SoftLink("/a/w")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["external"] = h5py.ExternalLink("other.h5", "/w")
        file["a/root"] = file["/"]
        file["b"] = file["a"]

    found = locate(build(fill, libver))
    assert found.keys() == {"a/w", "hard"}  # a group has the names of one path, or cycles would never end
    assert found["a/w"].offset == found["hard"].offset


def test_the_shortest_path_names_a_group() -> None:
    def fill(file: Any) -> None:
        file["a/b/c/w"] = np.arange(4.0)
        file["z"] = file["a/b/c"]

    assert locate(build(fill)).keys() == {"z/w"}


def test_groups_of_groups_of_the_same_groups_take_no_time() -> None:
    def fill(file: Any) -> None:
        group = file
        for _ in range(200):
            below = group.create_group("a")
            group["b"] = below  # 2**200 paths
            group = below
        group["w"] = np.arange(4.0)

    assert len(locate(build(fill))) == 1


@pytest.mark.parametrize("libver", LIBVERS)
def test_a_header_continued_elsewhere(libver: str) -> None:
    def fill(file: Any) -> None:
        file["w"] = np.arange(4.0)
        file["g/v"] = np.arange(5.0)
        for number in range(7):
            file["w"].attrs[f"attribute {number}"] = np.arange(100)
            file.attrs[f"attribute {number}"] = np.arange(100)
            file["g"].attrs[f"attribute {number}"] = np.arange(100)

    assert locate(build(fill, libver)).keys() == {"w", "g/v"}


def test_names_in_any_script() -> None:
    assert locate(build(lambda file: keras(file.create_group("模型/ü")))).keys() > set()


def test_many_links_in_the_newer_format_hide_their_group_only() -> None:
    def fill(file: Any) -> None:
        for number in range(20):
            file[f"many/{number}"] = np.arange(4.0)
        file["few/w"] = np.arange(4.0)

    assert locate(build(fill, "latest")).keys() == {"few/w"}


def test_a_user_block_is_another_format() -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        keras(file)
    assert formats.locate(BytesSource(buffer.getvalue())) == (formats.OPAQUE, [])


@pytest.mark.parametrize(("offsets", "lengths"), [(4, 4), (8, 4), (4, 8), (8, 8)])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_sizes_of_addresses_and_lengths(offsets: int, lengths: int, libver: str) -> None:
    properties, access = h5py.h5p.create(h5py.h5p.FILE_CREATE), h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    properties.set_sizes(offsets, lengths)
    access.set_fapl_core(backing_store=False)
    bound = h5py.h5f.LIBVER_EARLIEST if libver == "earliest" else h5py.h5f.LIBVER_LATEST
    access.set_libver_bounds(bound, h5py.h5f.LIBVER_LATEST)
    with h5py.File(h5py.h5f.create(b"in memory", h5py.h5f.ACC_TRUNC, properties, access)) as file:
        keras(file)
        file.flush()
        data = file.id.get_file_image()
    assert len(locate(data)) == 6


SMALL = build(lambda file: keras(file, 2))
SMALL_LATEST = build(lambda file: keras(file, 2), "latest")


def opaque(data: bytes) -> bool:
    return formats.locate(BytesSource(data)) == (formats.OPAQUE, [])


@pytest.mark.parametrize("data", [SMALL, SMALL_LATEST], ids=["earliest", "latest"])
def test_truncation(data: bytes) -> None:
    _, whole = formats.locate(BytesSource(data))
    for size in range(0, len(data), 97):
        _, found = formats.locate(BytesSource(data[:size]))
        assert not found or {item.name for item in found} == {item.name for item in whole}


@pytest.mark.parametrize(
    "signature", [b"TREE", b"HEAP", b"SNOD"], ids=lambda signature: signature.decode()
)  # fmt: skip
def test_a_wrong_signature(signature: bytes) -> None:
    assert opaque(SMALL.replace(signature, b"XXXX"))


def test_wrong_signatures_of_the_newer_format() -> None:
    assert opaque(SMALL_LATEST.replace(b"OHDR", b"XXXX"))


@pytest.mark.parametrize("version", [4, 255])
def test_an_unknown_superblock(version: int) -> None:
    assert opaque(SMALL[:8] + bytes([version]) + SMALL[9:])


@pytest.mark.parametrize(("at", "value"), [(13, 3), (14, 16), (13, 0), (24, 1)])
def test_a_superblock_of_odd_sizes_or_base(at: int, value: int) -> None:
    assert opaque(SMALL[:at] + bytes([value]) + SMALL[at + 1 :])


def test_a_tree_that_contains_itself() -> None:
    data = bytearray(SMALL)
    node = data.index(b"TREE")
    data[node + 5] = 1  # its level: the child is a node, no longer a leaf
    struct.pack_into("<Q", data, node + 24 + 8, node)
    assert opaque(bytes(data))


def test_a_node_that_is_every_child() -> None:
    data = bytearray(build(lambda file: [file.create_dataset(f"{n:04}", data=[1.0]) for n in range(600)]))
    node = data.rindex(b"TREE\0\0")  # a leaf of several
    count = struct.unpack_from("<H", data, node + 6)[0]
    assert count > 1
    for index in range(1, count):
        struct.pack_into("<8s", data, node + 32 + 16 * index, bytes(data[node + 32 : node + 40]))
    assert opaque(bytes(data))  # names stand twice


def test_a_continuation_of_itself() -> None:
    def fill(file: Any) -> None:
        file.attrs["a"] = np.arange(100)

    data = bytearray(build(fill))
    root = struct.unpack_from("<Q", data, 64)[0]
    size = struct.unpack_from("<I", data, root + 8)[0]
    loop = struct.pack("<HHB3xQQ", 0x10, 16, 0, root + 16, size)
    data[root + 16 : root + 16 + len(loop)] = loop
    assert opaque(bytes(data))


def test_links_that_share_one_long_name_do_not_fill_memory() -> None:
    where = []

    def fill(file: Any) -> None:
        for number in range(2000):
            file[f"{number:04}"] = h5py.SoftLink("/w")
        file["x" * 4000] = np.arange(4.0)
        where.append(h5py.h5o.get_info(file["x" * 4000].id).addr)

    data = bytearray(build(fill))
    entry = data.index(struct.pack("<Q", where[0]), data.index(b"SNOD")) - 8
    shared = data[entry : entry + 20]
    at = -1
    while (at := data.find(b"SNOD", at + 1)) >= 0:
        for index in range(struct.unpack_from("<H", data, at + 6)[0]):
            data[at + 8 + 40 * index : at + 28 + 40 * index] = shared
    with pytest.raises(FormatError, match="refers to itself"):
        module.locate(BytesSource(data))


@pytest.mark.parametrize("seed", [SMALL, SMALL_LATEST], ids=["earliest", "latest"])
@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_mutations_locate_inside_the_file_or_nothing(seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed)
    words = [b"\xff" * 8, bytes(8), struct.pack("<Q", len(seed)), *(struct.pack("<Q", at) for at in (8, 96, 800, 2048))]
    marks = [at for at in range(len(seed) - 8) if seed[at : at + 4] in (b"TREE", b"HEAP", b"SNOD", b"OHDR", b"OCHK")]
    for _ in range(data.draw(st.integers(1, 5))):
        near = data.draw(st.sampled_from([0, *marks]))
        at = min(near + data.draw(st.integers(0, 200)), len(seed) - 8)
        new = data.draw(st.sampled_from(words) | st.binary(min_size=1, max_size=8))
        changed[at : at + len(new)] = new
    kind, found = formats.locate(BytesSource(changed))
    assert all(0 <= item.offset <= item.end <= len(seed) for item in found)
    assert kind == "hdf5" or not found


def test_paths_have_a_limit() -> None:
    def fill(file: Any) -> None:
        group = file
        for _ in range(30):
            group = group.create_group("x" * 200)
        group["w"] = np.arange(4.0)

    assert module.MAX_NAME < 30 * 200
    assert opaque(build(fill))


def test_random_bytes_behind_the_signature() -> None:
    for _ in range(50):
        assert opaque(SMALL[:8] + os.urandom(500))

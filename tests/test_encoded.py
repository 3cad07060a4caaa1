"""Encoded objects give back every tensor, by any range, and are refused in little time and memory if they are broken.

The golden objects must decode for ever. They were written, once, by::

    for name in RECIPES:
        header, tensor, bases = recipe(name)
        (GOLDEN / f"object-{name}.bin").write_bytes(dumps(tensor, header, bases))
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256, shake_128
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from git_theta_btm.encoded import CHUNK, Decoded, Header, check_bases, encode_span, table
from git_theta_btm.errors import CorruptObject, FormatError, ObjectError
from git_theta_btm.planes import TYPES
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import load

GOLDEN = Path(__file__).parent / "golden"
MAGIC = b"git-theta-btm object 1\n"
SMALL = 4096  # bytes of a chunk, so that a few kilobytes have several


def dumps(data: bytes, header: Header, bases: Sequence[bytes] = ()) -> bytes:
    """The object that holds ``data``."""
    sources = [BytesSource(base) for base in bases]
    parts = [encode_span(data[span.offset :][: span.size], span, header, sources) for span in header.spans()]
    return header.dumps() + b"".join(parts) + table([len(part) for part in parts])


def loads(data: bytes, bases: Sequence[bytes] = ()) -> bytes:
    decoded = Decoded(BytesSource(data), [BytesSource(base) for base in bases])
    return decoded.read(0, decoded.size)


def written(fields: dict[str, Any], body: bytes = b"") -> bytes:
    """An object whose header is canonical, whatever it says."""
    return MAGIC + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n" + body


FIELDS = {"chunk": CHUNK, "group": None, "kind": "dense", "parameters": {}, "size": 8, "width": 4}


def numbers(size: int, seed: int = 0) -> bytes:
    """Bytes of normally distributed float32 numbers."""
    return np.random.default_rng(seed).normal(0, 0.02, -(-size // 4)).astype("<f4").tobytes()[:size]


def close(data: bytes, width: int = 4) -> bytes:
    """The same with small changes."""
    values = np.frombuffer(data, TYPES[width])
    return (values + np.random.default_rng(1).integers(0, 9, len(values)).astype(TYPES[width])).tobytes()


# -- golden objects --------------------------------------------------------------------------------------------------


def bits(seed: str, size: int) -> bytes:
    """Arbitrary bytes, NaN and subnormals among them; the same for ever."""
    return shake_128(seed.encode()).digest(size)


def tame(seed: str, size: int, width: int) -> bytes:
    """Numbers of about the size of weights: the exponent is between 2**-16 and 1 in BF16 and F32."""
    values = np.frombuffer(bits(seed, size), TYPES[width]).copy()
    place = 7 if width == 2 else 23
    exponents = (values >> TYPES[width].type(place)) & TYPES[width].type(15)
    rest = values & TYPES[width].type((1 << 8 * width - 1) | ((1 << place) - 1))
    return (rest | (exponents + TYPES[width].type(111)) << TYPES[width].type(place)).tobytes()


def merging(strategy: str, dtype: str, options: dict[str, Any], measures: dict[str, list[str]]) -> dict[str, Any]:
    """The parameters of a merge of three tips and a base."""
    keys = [bits(name, 16).hex() for name in ("key one", "key two", "key three")]
    weights = [(0.5).hex(), (1 / 3).hex(), (1.25).hex()]
    told = {"dtype": dtype, "has_base": True, "keys": keys, "weights": weights, "version": 1}
    return {**told, "strategy": strategy, "options": options, "measures": measures}


def family(width: int) -> list[bytes]:
    """Three tips and the base that they come from, all of about the size of weights."""
    return [tame(name, 10_000, width) for name in ("tip one", "tip two", "tip three", "base")]


def wild(width: int) -> list[bytes]:
    """The same, with NaN, infinities and subnormals in one tip and the base."""
    return [bits("tip one", 10_000), *family(width)[1:3], bits("base", 10_000)]


def hexed(*values: float) -> list[str]:
    return [value.hex() for value in values]


LAMBDA = {"lambda": (0.75).hex()}
RECIPES: dict[str, tuple[str, int, dict[str, Any], int | None, list[bytes]]] = {
    "dense": ("dense", 4, {}, None, []),
    "delta": ("delta", 4, {}, None, [bits("base", 10_000)]),
    "delta-grouped": ("delta", 2, {}, 7, [bits("base", 10_000)]),
    "delta-half": ("delta", 2, {}, 10, [bits("base", 10_000)]),
    "low-rank": (
        "low_rank",
        2,
        {"columns": 50, "dtype": "BF16", "factors": "F32", "rank": 3, "scale": (0.3).hex(), "transposed": False},
        None,
        [tame("base", 10_000, 2), tame("left", 100 * 3 * 4, 4), tame("right", 50 * 3 * 4, 4)],
    ),
    "low-rank-transposed": (
        "low_rank",
        4,
        {"columns": 50, "dtype": "F32", "factors": "BF16", "rank": 3, "scale": (-2.0).hex(), "transposed": True},
        None,
        [tame("base", 10_000, 4), tame("right", 50 * 3 * 2, 2), tame("left", 50 * 3 * 2, 2)],
    ),
    "ia3": (
        "ia3",
        2,
        {"axis": 1, "columns": 50, "dtype": "F16", "vector": "F32"},
        None,
        [bits("base", 10_000), tame("vector", 200, 4)],
    ),
    "linear": (
        "linear",
        4,
        {"dtype": "F32", "weights": [(0.1).hex(), (0.7).hex(), (1 / 3).hex()]},
        None,
        [bits("one", 10_000), bits("two", 10_000), tame("three", 10_000, 4)],
    ),
    "linear-divided": (
        "linear",
        2,
        {"divisor": (3.0).hex(), "dtype": "BF16", "weights": hexed(1.0, 0.7, -1 / 3)},
        None,
        [bits("one", 10_000), bits("two", 10_000), tame("three", 10_000, 2)],
    ),
    "delta-sparse": ("delta", 4, {}, None, [bits("base", 10_000)]),
    "merge-ties": (
        "merge",
        4,
        merging(
            "ties",
            "F32",
            {"density": hexed(0.2), "elect": "sum", "normalize": True, "scope": "tensor", **LAMBDA},
            {"thresholds": hexed(0.1, 0.05, 0.2)},
        ),
        None,
        wild(4),
    ),
    "merge-ties-votes": (
        "merge",
        2,
        merging(
            "ties",
            "BF16",
            {"density": hexed(0.2, 0.3, 1.0), "elect": "frequency", "normalize": False, "scope": "model", **LAMBDA},
            {"thresholds": hexed(0.1, 0.05, 0.0)},
        ),
        None,
        family(2),
    ),
    "merge-dare-linear": (
        "merge",
        4,
        merging(
            "dare_linear",
            "F32",
            {"density": hexed(0.5, 0.9, 1.0), "normalize": True, "rescale": "l1", "seed": 0, **LAMBDA},
            {"divisor": hexed(2.0833333333333335), "factors": hexed(1.9, 1.1, 1.0)},
        ),
        None,
        family(4),
    ),
    "merge-dare-ties": (
        "merge",
        2,
        merging(
            "dare_ties",
            "BF16",
            {"density": hexed(0.5), "normalize": False, "rescale": "expectation", "seed": -7, **LAMBDA},
            {"divisor": hexed(1.0), "factors": hexed(2.0, 2.0, 2.0)},
        ),
        None,
        wild(2),
    ),
    "merge-breadcrumbs": (
        "merge",
        4,
        merging(
            "breadcrumbs",
            "F32",
            {"density": hexed(0.9), "gamma": hexed(0.01), "normalize": False, **LAMBDA},
            {"divisor": hexed(1.0), "high": hexed(0.5, 0.6, 0.7), "low": hexed(0.01, 0.0, 0.02)},
        ),
        None,
        family(4),
    ),
    "merge-breadcrumbs-ties": (
        "merge",
        2,
        merging(
            "breadcrumbs_ties",
            "F16",
            {"density": hexed(0.9), "gamma": hexed(0.01), "normalize": True, **LAMBDA},
            {"divisor": hexed(1.0), "high": hexed(1e3, 1e4, float("inf")), "low": hexed(1e-3, 0.0, 0.02)},
        ),
        None,
        [bits(name, 10_000) for name in ("tip one", "tip two", "tip three", "base")],
    ),
    "merge-sce": (
        "merge",
        4,
        merging(
            "sce",
            "F32",
            {"select_topk": (0.5).hex()},
            {"coefficients": hexed(0.25, 0.5, 0.25), "least": hexed(0.02)},
        ),
        None,
        wild(4),
    ),
    "merge-consensus": (
        "merge",
        2,
        merging("consensus", "BF16", {"alpha": (0.5).hex(), "k": 2, "tall_lambda": (0.6).hex()}, {}),
        None,
        family(2),
    ),
    "merge-emr": ("merge", 4, merging("emr", "F32", {}, {}), None, family(4)),
    "merge-ram": ("merge", 2, merging("ram", "BF16", {"epsilon": (0.01).hex()}, {}), None, family(2)),
    "merge-ram-plus": (
        "merge",
        4,
        merging(
            "ram_plus",
            "F32",
            {"alpha": (0.2).hex(), "epsilon": (0.3).hex(), "r": (0.1).hex()},
            {"scales": hexed(1.02, 1.0, 1.01)},
        ),
        None,
        wild(4),
    ),
    "merge-nearswap": (
        "merge",
        2,
        {
            **merging("nearswap", "BF16", {"t": (0.01).hex()}, {}),
            "has_base": False,
            "keys": ["00" * 16] * 2,
            "weights": hexed(1.0, 1.0),
        },
        None,
        family(2)[:2],
    ),
}
SHA256 = {
    "dense": "cf5a04ffb65aa6ebf97a4c4eb5a26d20be93f15caae8111cbf3040960d57d459",
    "delta": "87cae9a27a5d541cdfeadbc0561e5cdddb770de41dcae47b557cf933127f1595",
    "delta-grouped": "fb82657b2da44d05720f4d223d1eca847132459d84223f00905e5f6073efa267",
    "delta-half": "fb82657b2da44d05720f4d223d1eca847132459d84223f00905e5f6073efa267",
    "low-rank": "c8f006c4c00caeab729bbd82834bb9135d4562dd77aab6304a7aa43c9fce90fc",
    "low-rank-transposed": "d56348a2df9f4471d19a42b198256f01d4c58e8afb12993b8d60a1388bc946c8",
    "ia3": "25f8c47bc310563d7503f5d67b1f2044e1ab5a4aca34f387ae8a298ab2e0db75",
    "linear": "15787e4614e423b2c42e503843ab640fdb9492d8e83153bed5de2efeda8fdee3",
    "linear-divided": "7f72446f1a4d36d6be37407fb1fbe8f527c3d1dfb26fb7109b5bd54538c38604",
    "delta-sparse": "c1d75b176c2a5a49f1204786834a3998702efec8d606951c0d73628017fe37bd",
    "merge-ties": "65ce4396b2694c15861f82a0985b779e615a4e8f5b4c5138b3018dd5acc13cc2",
    "merge-ties-votes": "f8ef0f384eeb0e49f6680c37f3d298660b26ba1daf6a5a48605d21b57604c23c",
    "merge-dare-linear": "94b6aa3ef4742ece6b9915020847d35c4ff0e5e7b9d82ea71e28b886673fb234",
    "merge-dare-ties": "846e76274b93b0ab0d7cf77b3457663a08ab05e0bdd90768ba7ffa17d1e10f4a",
    "merge-breadcrumbs": "d1263ac02e8e0ad8574d018c986fb44c52134fb25ab73a0692d2ced839a16537",
    "merge-breadcrumbs-ties": "089d794d469d2dab4bd0cb8036b443e81dbfd83c9a6ca75f9d775e637c36a478",
    "merge-sce": "b4d278d5c2953ecd2d1a671abd40eb281f185211a12cc314e35e1e206661e798",
    "merge-consensus": "b20e42e1d78fc4de4730ed32456c20da0ced4c9e94dc1ed838f37725fcaf4905",
    "merge-emr": "554ef567079433ed4caa19df5dcf010565b3f98d66c8623083204b602018dca1",
    "merge-ram": "f5d5d0bd73125a5758fa9f1e5ada82b38c08643b8736620c104e65621a4f3122",
    "merge-ram-plus": "2088dfe49e86205b08dfd361ea7064b8f6e0e5362bdc27812a40db85cbff4242",
    "merge-nearswap": "bc22ce032669cdc6cf412a6fdb580e43713c243e8a42eb55a726db282ac4f1e3",
}


def recipe(name: str) -> tuple[Header, bytes, list[bytes]]:
    """The header, the tensor and the bases of a golden object. The tensor is the prediction and a small residual."""
    kind, width, parameters, group, bases = RECIPES[name]
    header = Header(kind, width, 10_000, parameters, group, SMALL)
    sources = [BytesSource(base) for base in bases]
    noise = np.frombuffer(bits("noise", 10_000), TYPES[width]) & TYPES[width].type(3)
    if name == "delta-sparse":
        noise = np.where(np.frombuffer(bits("where", len(noise)), np.uint8) < 16, noise, TYPES[width].type(0))
    predictions = [load(kind).predict(span, sources, parameters) for span in header.spans()]
    if predictions[0] is None:
        return header, tame("tensor", 10_000, width), bases
    return header, (np.concatenate(predictions) + noise).tobytes(), bases


@pytest.mark.parametrize("name", RECIPES)
def test_a_golden_object_decodes_for_ever(name: str) -> None:
    data = (GOLDEN / f"object-{name}.bin").read_bytes()
    *_, bases = RECIPES[name]
    assert sha256(loads(data, bases)).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_golden_tensor_is_still_predicted(name: str) -> None:
    """Were a prediction off by a bit on some machine, this one would be first to know."""
    _, tensor, _ = recipe(name)
    assert sha256(tensor).hexdigest() == SHA256[name]


def test_the_golden_sparse_planes_are_sparse() -> None:
    data = (GOLDEN / "object-delta-sparse.bin").read_bytes()
    start = data.index(b"\n", len(MAGIC)) + 1
    assert [word >> 30 for word in struct.unpack_from("<4I", data, start)] == [3, 2, 2, 2]


# -- decode(encode(x, bases), bases) == x ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", sorted(TYPES))
@pytest.mark.parametrize("size", [8, 16, SMALL - 8, SMALL, SMALL + 8, 3 * SMALL, 3 * SMALL + 8, 5 * SMALL - 8])
def test_sizes_around_a_chunk(width: int, size: int) -> None:
    base, group = numbers(size), {2: 7, 4: 23, 8: 52}.get(width)
    for tensor in (base, close(base, width), bits("other", size), bytes(size)):
        for kind, bases in (("dense", []), ("delta", [base])):
            for grouped in (None, group):
                header = Header(kind, width, size, {}, grouped, SMALL)
                assert loads(dumps(tensor, header, bases), bases) == tensor


@pytest.mark.parametrize("size", [CHUNK - 4, CHUNK, CHUNK + 4, 2 * CHUNK + 12])
def test_sizes_around_the_usual_chunk(size: int) -> None:
    base = numbers(size)
    tensor = close(base)
    header = Header("delta", 4, size, {})
    data = dumps(tensor, header, [base])
    assert len(data) < 0.5 * size
    assert loads(data, [base]) == tensor


def test_nothing_at_all() -> None:
    data = dumps(b"", Header("dense", 4, 0, {}))
    assert loads(data) == b""
    assert Decoded(BytesSource(data), []).read(0, 0) == b""


def test_chunks_without_a_change_take_four_bytes_each() -> None:
    base = numbers(100 * SMALL)
    tensor = bytearray(base)
    tensor[50 * SMALL + 17] ^= 1
    header = Header("delta", 4, len(base), {}, chunk=SMALL)
    assert len(dumps(bytes(tensor), header, [base])) < 100 * 4 + len(header.dumps()) + 100


TENSOR = close(numbers(5 * SMALL + 40))
DELTA = dumps(TENSOR, Header("delta", 4, len(TENSOR), {}, 23, SMALL), [numbers(len(TENSOR))])


@settings(max_examples=200)
@given(st.integers(0, len(TENSOR)), st.integers(0, len(TENSOR)))
@example(0, len(TENSOR))
@example(SMALL, SMALL)
@example(SMALL, 2 * SMALL)
@example(SMALL - 1, SMALL + 1)
@example(len(TENSOR), len(TENSOR))
def test_any_range_is_that_slice(start: int, end: int) -> None:
    start, end = sorted((start, end))
    decoded = Decoded(BytesSource(DELTA), [BytesSource(numbers(len(TENSOR)))])
    assert decoded.read(start, end - start) == TENSOR[start:end]
    buffer = bytearray(end - start)
    decoded.readinto(start, memoryview(buffer))
    assert buffer == TENSOR[start:end]


@pytest.mark.parametrize(("offset", "size"), [(-1, 2), (0, len(TENSOR) + 1), (len(TENSOR), 1), (8, -1), (1 << 70, 1)])
def test_a_range_that_is_not_there(offset: int, size: int) -> None:
    decoded = Decoded(BytesSource(DELTA), [BytesSource(numbers(len(TENSOR)))])
    with pytest.raises(FormatError):
        decoded.read(offset, size)


class Counting(BytesSource):
    """A source that knows how much of it was read."""

    total = 0

    def view(self, offset: int, size: int) -> memoryview:
        self.total += size
        return super().view(offset, size)


def test_a_slice_reads_no_more_than_its_chunks() -> None:
    base, source = Counting(numbers(len(TENSOR))), Counting(DELTA)
    decoded = Decoded(source, [base])
    source.total = 0
    decoded.read(2 * SMALL + 5, 10)
    assert base.total == SMALL
    assert source.total < SMALL


def test_an_object_is_the_same_whenever_it_is_written() -> None:
    header = Header("delta", 4, len(TENSOR), {}, 23, SMALL)
    assert dumps(TENSOR, header, [numbers(len(TENSOR))]) == DELTA
    assert DELTA.startswith(
        b'git-theta-btm object 1\n{"chunk":4096,"group":23,"kind":"delta","parameters":{},"size":20520,"width":4}\n'
    )


# -- broken objects --------------------------------------------------------------------------------------------------

HUGE = [1 << 31, 1 << 62, 1 << 64, 10**100]
WRONG: list[dict[str, Any]] = [
    *({"size": value} for value in [*HUGE, -8, 9, 8.0, "8", None, True, [8], {}]),
    *({"chunk": value} for value in [*HUGE, 0, -8, 12, (64 << 20) + 8, 4096.0, "4096", None, True, []]),
    *({"width": value} for value in [*HUGE, 0, 3, 16, -4, 4.0, "4", None, True, [], {}]),
    *({"group": value} for value in [*HUGE, -1, 32, 1.5, "7", True, [], {}]),
    *({"parameters": value} for value in [None, [], "x", 1, True]),
    *({"kind": value} for value in [None, [], {}, 1, True, "", "os", "../x", "__init__", "delta ", "x" * 9000, "\0"]),
    {"extra": 1},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: json.dumps(fields)[:40])
def test_a_header_that_cannot_be(fields: dict[str, Any]) -> None:
    for body in (b"", struct.pack("<I", 0), bytes(8) + struct.pack("<I", 8)):
        with pytest.raises(ObjectError):
            loads(written({**FIELDS, **fields}, body))


@pytest.mark.parametrize("name", FIELDS)
def test_a_header_without_a_field(name: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(CorruptObject):
        loads(written(fields, struct.pack("<I", 0)))


BROKEN = {
    "nothing": b"",
    "no magic": b"{}\n",
    "only the magic": MAGIC,
    "another version": MAGIC.replace(b"1", b"2") + written(FIELDS)[len(MAGIC) :] + bytes(4),
    "no end": written(FIELDS)[:-1],
    "a number": MAGIC + b"1\n",
    "a list": MAGIC + b"[1,2]\n",
    "nothing in it": MAGIC + b"{}\n",
    "not text": MAGIC + bytes(range(128, 256)) + b"\n",
    "spaces": MAGIC + json.dumps(FIELDS, sort_keys=True).encode() + b"\n" + bytes(4),
    "a field twice": written(FIELDS, bytes(4)).replace(b'"size":8', b'"size":8,"size":8'),
    "a long number": MAGIC + b'{"size":' + b"9" * 9000 + b"}\n",
    "deep lists": MAGIC + b'{"parameters":{"a":' + b"[" * 8000 + b"]" * 8000 + b"}}\n",
    "no table": written(FIELDS),
    "a table that is cut short": written(FIELDS, bytes(3)),
    "more than its table says": written(FIELDS, bytes(5)),
    "less than its table says": written(FIELDS, struct.pack("<I", 1)),
    "a payload longer than any": written(FIELDS, bytes(1 << 20) + struct.pack("<I", 1 << 20)).replace(
        str(CHUNK).encode(), b"4096", 1
    ),
    "a long header": written({**FIELDS, "parameters": {"a": "b" * 20_000}}, bytes(4)),
    "chunks of eight bytes": written({**FIELDS, "chunk": 8, "size": 80_000}, bytes(40_000)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_object(name: str) -> None:
    with pytest.raises(ObjectError):
        loads(BROKEN[name])


@pytest.mark.parametrize("depth", range(100, 1100, 20))
def test_nested_parameters_never_exhaust_the_stack(depth: int) -> None:
    text = json.dumps({**FIELDS, "parameters": {"a": "?"}}, sort_keys=True, separators=(",", ":"))
    data = MAGIC + text.replace('"?"', "[" * depth + "]" * depth).encode() + b"\n" + bytes(4)
    with suppress(CorruptObject):
        assert loads(data) == bytes(8)


def test_a_writer_refuses_a_header_that_no_reader_would_take() -> None:
    with pytest.raises(CorruptObject):
        Header("linear", 4, 8, {"weights": ["0x1.5555555555555p-2"] * 1000}).dumps()


@pytest.mark.parametrize("size", [1 << 30, 1 << 50])
def test_zeros_cost_no_memory_before_they_are_read(size: int) -> None:
    """Four bytes stand for 64 MiB: what an object claims must cost nothing until somebody reads it."""
    fields = {**FIELDS, "size": size, "chunk": 64 << 20}
    body = bytes(4 * (size // (64 << 20))) if size < 1 << 40 else b""
    tracemalloc.start()
    try:
        with suppress(CorruptObject):
            assert Decoded(BytesSource(written(fields, body)), []).size == size
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# -- bases and parameters that do not fit ----------------------------------------------------------------------------


def test_a_base_larger_than_the_tensor() -> None:
    header = Header("delta", 4, 8, {})
    check_bases(header, [BytesSource(bytes(CHUNK))])
    with pytest.raises(CorruptObject):
        check_bases(header, [BytesSource(bytes(CHUNK + 1))])
    with pytest.raises(CorruptObject):
        encode_span(bytes(8), next(header.spans()), header, [BytesSource(bytes(CHUNK + 1))])


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name][4]])
def test_bases_of_the_wrong_number_or_size(name: str) -> None:
    data = (GOLDEN / f"object-{name}.bin").read_bytes()
    *_, bases = RECIPES[name]
    wrong = [[], bases[1:], [*bases, bases[0]], *([*bases[:at], b"", *bases[at + 1 :]] for at in range(len(bases)))]
    wrong += [[*bases[:at], bases[at][:-1], *bases[at + 1 :]] for at in range(len(bases))]
    for chosen in wrong:
        with pytest.raises(CorruptObject):
            loads(data, chosen)


ANYTHING = [
    None,
    True,
    -1,
    0,
    1,
    7,
    1 << 31,
    1 << 63,
    1 << 64,
    10**30,
    1e308,
    "",
    "x",
    "F32",
    "0x1p99999",
    "nan",
    [],
    {},
]


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name][2]])
def test_parameters_of_the_wrong_type_or_size(name: str) -> None:
    kind, width, parameters, group, bases = RECIPES[name]
    payloads = (GOLDEN / f"object-{name}.bin").read_bytes().partition(b'"width":%d}\n' % width)[2]
    wrong = [{key: value for key, value in parameters.items() if key != gone} for gone in parameters]
    wrong += [{**parameters, key: value} for key in parameters for value in [*ANYTHING, ["x"], [1, 2, 3], [[]] * 3]]
    for chosen in [{}, *wrong]:
        fields = {"chunk": SMALL, "group": group, "kind": kind, "parameters": chosen, "size": 10_000, "width": width}
        with suppress(ObjectError):
            assert len(loads(written(fields, payloads), bases)) == 10_000


@pytest.mark.parametrize("kind", ["low_rank", "ia3", "linear"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "I32", "F8_E4M3"])
@pytest.mark.parametrize("width", sorted(TYPES))
def test_a_type_that_is_not_as_wide_as_the_elements(kind: str, dtype: str, width: int) -> None:
    parameters: dict[str, Any] = {"dtype": dtype, "weights": [(1.0).hex()]}
    parameters |= {"axis": 0, "columns": 1, "vector": "F32", "factors": "F32", "rank": 1, "scale": (1.0).hex()}
    fields = {**FIELDS, "kind": kind, "parameters": {**parameters, "transposed": False}, "size": 24, "width": width}
    count = {"low_rank": 3, "ia3": 2, "linear": 1}[kind]
    widths = {"F8_E4M3": 1 if kind == "linear" else 0, "BF16": 2, "F16": 2, "F32": 4, "F64": 8}
    fits = widths.get(dtype) == width
    data = written(fields, bytes(4))
    if fits:
        assert loads(data, [bytes(24), bytes(48), bytes(4)][:count]) == bytes(24)
    else:
        with pytest.raises(CorruptObject):
            loads(data, [bytes(24), bytes(48), bytes(4)][:count])


@settings(max_examples=200)
@given(st.data(), st.sampled_from(sorted(RECIPES)))
def test_a_damaged_object_gives_bytes_or_an_error(data: st.DataObject, name: str) -> None:
    good = bytearray((GOLDEN / f"object-{name}.bin").read_bytes())
    *_, bases = RECIPES[name]
    where = st.integers(0, len(good) - 1) | st.integers(0, 250) | st.integers(len(good) - 12, len(good) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(where)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del good[data.draw(where) : data.draw(where)]
    with suppress(ObjectError):
        decoded = Decoded(BytesSource(bytes(good)), [BytesSource(base) for base in bases])
        size = min(decoded.size, 1 << 20)
        assert len(decoded.read(0, size)) == size

"""Files made to harm whoever loads them: nothing in them runs, and reading them costs no more than their length."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.errors import FormatError
from git_theta_btm.formats import Format, Located, locate, torch_legacy, torch_zip
from git_theta_btm.source import BytesSource

STORAGE = {"0": bytes(range(64))}
MAGIC = pickle.dumps(torch_legacy.MAGIC_NUMBER, 2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)


def archive(data: bytes, storages: dict[str, bytes] = STORAGE, **others: bytes) -> bytes:
    """A file of ``torch.save`` around a pickle of our own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("archive/data.pkl", data)
        for key, content in storages.items():
            target.writestr(f"archive/data/{key}", content)
        for name, content in others.items():
            target.writestr(f"archive/{name}", content)
    return file.getvalue()


def legacy(data: bytes, keys: object = ("0",), count: int = 16) -> bytes:
    """The same as PyTorch wrote it before 1.6."""
    listed = pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2)
    return MAGIC + pickle.dumps(1001, 2) + SYSTEM + data + listed + struct.pack("<Q", count) + STORAGE["0"]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def reference(key: str = "0", numel: int = 16, kind: bytes = b"ctorch\nFloatStorage\n", more: bytes = b"") -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + integer(numel) + more + b"tQ"


FOUR, ONE = b"K\4\x85", b"K\1\x85"


def tensor(storage: bytes = reference(), offset: int = 0, shape: bytes = FOUR, strides: bytes = ONE) -> bytes:
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + storage + integer(offset) + shape + strides + b"\x89}tR"


def found(data: bytes) -> list[Located]:
    for item in (items := torch_zip.locate(BytesSource(data))):
        assert 0 <= item.offset <= item.end <= len(data)
    return items


def test_the_tensors_of_handmade_files() -> None:
    for data, module in ((archive(tensor() + b"."), torch_zip), (legacy(tensor() + b"."), torch_legacy)):
        (item,) = module.locate(BytesSource(data))
        assert (item.name, str(item.tensor)) == ("tensor", "F32[4]")
        assert data[item.offset : item.end] == bytes(range(16))


def gadgets(command: str) -> dict[str, bytes]:
    """Pickles that run a command, or would if nobody looked; each stands where a tensor could."""
    run = text(command)
    code = text(f"__import__('os').system({command!r})")
    spell = text("os") + b"q\0" + text("system") + b"q\1" + b"0" * 2
    return {
        "os.system": b"cos\nsystem\n" + run + b"\x85R",
        "posix.system": b"cposix\nsystem\n" + run + b"\x85R",
        "eval": b"cbuiltins\neval\n" + code + b"\x85R",
        "exec": b"cbuiltins\nexec\n" + code + b"\x85R",
        "python 2's eval": b"c__builtin__\neval\n" + code + b"\x85R",
        "subprocess": b"csubprocess\ncheck_output\n(" + run + b"N\x88tR",
        "INST": b"(" + run + b"ios\nsystem\n",
        "OBJ": b"(cos\nsystem\n" + run + b"o",
        "NEWOBJ": b"cos\nsystem\n" + run + b"\x85\x81",
        "NEWOBJ_EX": b"cos\nsystem\n)}" + text("command") + run + b"s\x92",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + run + b"\x85R",
        "STACK_GLOBAL from the memo": spell + b"h\0h\1\x93" + run + b"\x85R",
        "attribute path": text("builtins") + text("__import__.__call__") + b"\x93" + text("os") + b"\x85R",
        "getattr": b"cbuiltins\ngetattr\n(c__main__\nos\n" + text("system") + b"tR" + run + b"\x85R",
        "numpy": b"cnumpy.testing._private.utils\nrunstring\n(" + code + b"}tR",
        "operator": b"coperator\nmethodcaller\n(" + text("system") + run + b"tRcbuiltins\n__import__\n" + b"0",
        "pkgutil": b"cpkgutil\nresolve_name\n" + text("os:system") + b"\x85R" + run + b"\x85R",
        "torch.load": b"ctorch\nload\n" + text("/dev/null") + b"\x85R",
        "torch's storage loader": b"ctorch.storage\n_load_from_bytes\nC\x04abcd\x85R",
        "runpy": b"crunpy\n_run_code\n(" + code + b"}tR",
        "timeit": b"ctimeit\ntimeit\n(" + code + b"tR",
        "code": b"ccode\nInteractiveInterpreter\n)Rq\0}" + text("runsource") + b"h\0sb",
        "setstate": b"c__main__\nAnything\n)R}" + text("__setstate__") + b"cos\nsystem\nsb",
        "setstate of a tensor": tensor() + b"}" + text("_backward_hooks") + b"cos\nsystem\nsb",
        "a function instead of a tensor's": b"cos\nsystem\n(" + reference() + b"K\0K\4\x85K\1\x85\x89}tR",
        "a persistent id": b"cos\nsystem\n" + run + b"\x85RQ",
        "a storage of a command": reference(kind=b"cos\nsystem\n"),
        "a subclass made by a command": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN" + run + b"\x85NtR",
        "extension registry": b"\x82\1",
        "wide extension registry": b"\x84\1\0\0\0",
        "buffer outside": b"\x97",
    }


@pytest.mark.parametrize("name", gadgets(""))
def test_nothing_in_a_file_ever_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    gadget = gadgets(f"touch {canary}")[name]
    for data in (b"\x80\2" + gadget + b".", b"\x80\2](" + gadget + tensor() + b"e."):
        outcomes = [locate(BytesSource(file)) for file in (archive(data), legacy(data))]
        for container, items in outcomes:
            assert container != "opaque" or items == []
        assert not canary.exists()


def test_the_canary_sings_for_those_who_unpickle(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in ("os.system", "eval", "INST", "STACK_GLOBAL from the memo", "pkgutil"):
        pickle.loads(b"\x80\4" + gadgets(f"touch {canary}")[name] + b".")
        assert canary.exists()
        os.unlink(canary)


def test_tensors_next_to_a_gadget_are_still_found() -> None:
    (item,) = found(archive(b"](" + gadgets("true")["os.system"] + tensor() + b"e."))
    assert item.name == "1"


BOMBS: dict[str, Callable[[int], bytes]] = {
    "doubled lists": lambda n: tensor() + b"\x85" + b"2\x86" * n,
    "shared dictionaries": lambda n: b"}Nq\1" + b"0q\1" + (b"}(K\0h\1K\1h\1uq\1" * n),
    "one tensor a million times": lambda n: tensor() + b"q\1" + b"0](" + b"h\1" * n * n * 100 + b"e",
    "list of a list": lambda n: b"](" + b"N" * n * 400 + b"eq\1" + b"0](" + b"h\1" * n * 400 + b"e",
    "dictionary as old arguments": lambda n: (
        b"](" + b"]NaNa" * n * 100 + b"eq\1ccollections\nOrderedDict\nh\1\x85R" + b"q\2](" + b"h\2" * n * 100 + b"e"
    ),
    "nested lists": lambda n: b"]" * n * 2000 + tensor() + b"a" * n * 2000,
    "long keys": lambda n: b"}" + text("k" * 100_000) + b"q\1" + b"}h\1" * n * 100 + tensor() + b"s" * (n * 100 + 1),
    "wide shape": lambda n: tensor(shape=b"(" + b"K\1" * n * 1000 + b"t"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_values_that_take_forever_to_visit(name: str) -> None:
    data = archive(BOMBS[name](60) + b".")
    begin = time.process_time()
    try:
        items = found(data)
    except FormatError:
        items = []
    assert time.process_time() - begin < 5  # measured: 0.01 to 0.9 s
    assert sum(len(item.name) for item in items) < 20 * len(data) + (1 << 16)


def test_a_container_in_itself_is_entered_once() -> None:
    (item,) = found(archive(b"]q\1h\1a" + tensor() + b"ah\1a."))
    assert item.name == "1"


ABUSE = {
    "offset outside": tensor(offset=13),
    "huge offset": tensor(offset=1 << 62),
    "offset beyond all numbers": tensor(offset=1 << 200),
    "negative offset": tensor(offset=-1),
    "shape outside": tensor(shape=b"K\x11\x85"),
    "strides outside": tensor(strides=b"K\x06\x85"),
    "negative stride": tensor(strides=b"J\xff\xff\xff\xff\x85"),
    "negative shape": tensor(shape=b"J\xff\xff\xff\xff\x85"),
    "shape of text": tensor(shape=text("4") + b"\x85"),
    "shape of flags": tensor(shape=b"\x88\x85"),
    "shape that is none": tensor(shape=b"K\4"),
    "shape without strides": tensor(strides=b")"),
    "shape that overflows": tensor(shape=b"(" + integer(1 << 61) * 64 + b"t", strides=b"(" + b"K\1" * 64 + b"t"),
    "storage longer than its member": tensor(reference(numel=17)),
    "huge storage": tensor(reference(numel=1 << 61)),
    "negative storage": tensor(reference(numel=-1)),
    "storage that is not there": tensor(reference("1")),
    "storage by path": tensor(reference("../data.pkl")),
    "storage without a key": tensor(b"(" + text("storage") + b"ctorch\nFloatStorage\nNNK\1tQ"),
    "storage of no type": tensor(reference(kind=b"N")),
    "no storage": tensor(b"K\1"),
    "reference to something else": tensor(b"(" + text("module") + b"NNNNtQ"),
    "reference that is a number": tensor(b"K\1Q"),
    "view larger than its storage": tensor(reference(more=b"(" + text("v") + b"K\1K\x10t")),
    "view that is none": tensor(reference(more=b"K\1")),
    "too few arguments": b"ctorch._utils\n_rebuild_tensor_v2\n" + reference() + b"\x85R",
    "no element type": b"ctorch._utils\n_rebuild_tensor_v3\n(" + reference() + b"K\0K\4\x85K\1\x85tR",
    "sparse without parts": b"ctorch._utils\n_rebuild_sparse_tensor\n)R",
    "subclass without parts": b"ctorch._tensor\n_rebuild_from_type_v2\n)R",
}


@pytest.mark.parametrize("name", ABUSE)
def test_tensors_that_reach_for_other_bytes(name: str) -> None:
    with pytest.raises(FormatError):
        found(archive(ABUSE[name] + b"."))
    assert locate(BytesSource(legacy(ABUSE[name] + b"."))) == ("opaque", [])


def test_a_view_of_a_storage_is_located_within_it() -> None:
    data = legacy(tensor(reference(more=b"(" + text("v") + b"K\4K\4t")) + b".")
    (item,) = torch_legacy.locate(BytesSource(data))
    assert data[item.offset : item.end] == bytes(range(16, 32))


def test_elements_without_a_counterpart_are_left_alone() -> None:
    kind = b"ctorch\nFancyStorage\n"
    fancy = b"ctorch._utils\n_rebuild_tensor_v3\n(" + reference() + b"K\0K\4\x85K\1\x85\x89}ctorch\nint3\ntR"
    items = found(archive(b"](" + tensor(reference(kind=kind)) + fancy + tensor() + b"e."))
    assert [item.name for item in items] == ["2"]
    with pytest.raises(FormatError, match="unknown size"):
        torch_legacy.locate(BytesSource(legacy(tensor(reference(kind=kind)) + b".")))


@pytest.mark.parametrize("keys", [None, ("1",), ("0", "0"), (b"0",), (0,), ("0", "1"), ()])
def test_legacy_keys_that_are_wrong(keys: object) -> None:
    with pytest.raises(FormatError):
        torch_legacy.locate(BytesSource(legacy(tensor() + b".", keys)))


def test_legacy_lengths_that_are_wrong() -> None:
    for count in (0, 15, 17, (1 << 64) - 1):
        with pytest.raises(FormatError):
            torch_legacy.locate(BytesSource(legacy(tensor() + b".", count=count)))


def test_archives_that_are_not_quite_those_of_torch() -> None:
    data = tensor() + b"."
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", data)
    two = io.BytesIO(archive(data))
    with zipfile.ZipFile(two, "a") as target:
        target.writestr("other/data.pkl", data)
    deep = archive(data).replace(b"archive/data.pkl", b"archi/e/data.pkl")
    for file in (packed.getvalue(), two.getvalue(), deep, archive(data, byteorder=b"big"), archive(data, {})):
        with pytest.raises(FormatError):
            torch_zip.locate(BytesSource(file))
    assert len(found(archive(data, byteorder=b"little", version=b"3"))) == 1


def test_files_that_were_cut_off() -> None:
    for data, module in ((archive(tensor() + b"."), torch_zip), (legacy(tensor() + b"."), torch_legacy)):
        for size in {*range(0, len(data), 97), *range(0, len(data), 7), len(data) - 1}:
            with pytest.raises(FormatError):
                module.locate(BytesSource(data[:size]))


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.sampled_from([(archive, torch_zip), (legacy, torch_legacy)]))
def test_files_with_some_bytes_changed(random: Random, kind: tuple[Callable[[bytes], bytes], Format]) -> None:
    wrap, module = kind
    value = b"}(" + text("a") + tensor() + text("b") + tensor(offset=4, strides=b"K\3\x85") + b"u."
    data = bytearray(wrap(value))
    for _ in range(random.randint(1, 3)):
        data[random.randrange(len(data))] = random.choice([0, 1, 255, random.randrange(256)])
    try:
        items = module.locate(BytesSource(data))
    except FormatError:
        return
    assert all(0 <= item.offset <= item.end <= len(data) for item in items)
    assert len({item.name for item in items}) == len(items)

"""Files that PyTorch writes: every tensor is found, under the name it is saved by, at the bytes that are its memory."""

from __future__ import annotations

import argparse
import io
from collections import OrderedDict
from typing import Any

import pytest

from git_theta_btm.errors import FormatError
from git_theta_btm.formats import Located, locate, torch_legacy, torch_zip
from git_theta_btm.source import BytesSource

torch = pytest.importorskip("torch")

CONTAINERS = ("torch_zip", "torch_legacy")


def saved(value: object, container: str = "torch_zip") -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=container == "torch_zip")
    return file.getvalue()


def found(data: bytes, container: str = "torch_zip") -> dict[str, Located]:
    name, tensors = locate(BytesSource(data))
    assert name == container
    return {tensor.name: tensor for tensor in tensors}


def memory(tensor: Any) -> bytes:
    """The bytes that a tensor spans in its storage, from its first element to its last."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    count = last + 1 if tensor.numel() else 0
    begin = tensor.storage_offset() * tensor.element_size()
    return bytes(tensor.untyped_storage())[begin : begin + count * tensor.element_size()]


def agree(value: object, expected: dict[str, Any], container: str = "torch_zip") -> dict[str, Located]:
    """Save ``value``; the tensors found must be exactly ``expected``, bytes, shapes and strides."""
    data = saved(value, container)
    tensors = found(data, container)
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        item = tensors[name]
        assert data[item.offset : item.end] == memory(tensor), name
        assert item.tensor.shape == tuple(tensor.shape)
        assert item.tensor.strides is None or item.tensor.strides == tensor.stride()
        assert (item.tensor.strides is None) == tensor.is_contiguous()
    return tensors


def numbers(dtype: Any, count: int = 12) -> Any:
    """Tensors of every bit pattern, NaNs included."""
    generator = torch.Generator().manual_seed(count)
    size = dtype.itemsize * count
    data = torch.randint(0, 2 if dtype is torch.bool else 256, (size,), dtype=torch.uint8, generator=generator)
    return data.view(dtype)


DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex32": "C32", "complex64": "C64", "complex128": "C128", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_every_element_type(name: str, container: str) -> None:
    tensor = numbers(getattr(torch, name)).reshape(3, 4)
    tensors = agree({"x": tensor}, {"x": tensor}, container)
    assert tensors["x"].tensor.dtype.name == DTYPES[name]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_flat_state_dict_has_its_own_keys_as_names(container: str) -> None:
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    tensors = agree(state, dict(state), container)
    assert str(tensors["0.weight"].tensor) == "F32[4,3]"
    assert str(tensors["1.num_batches_tracked"].tensor) == "I64[]"


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_containers(container: str) -> None:
    a, b, c, d, e = (torch.full((2,), float(value)) for value in range(5))
    value = {"list": [1, a, ("text", b)], 7: {"é\udc80": c}, (1, 2): d, None: {None}, "set": {1}, "o": OrderedDict(k=e)}
    agree(value, {"list.1": a, "list.2.1": b, "7.é\udc80": c, "2": d, "o.k": e}, container)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_checkpoint_with_its_optimizer(container: str) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    value = {
        "epoch": 3,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, scale=torch.tensor(2.0), nested={"x": torch.ones(3)}),
        "rng": torch.get_rng_state(),
    }
    moments = value["optimizer"]["state"]
    expected = {f"model.{name}": tensor for name, tensor in value["model"].items()}
    expected |= {f"optimizer.state.{i}.{name}": x for i, state in moments.items() for name, x in state.items()}
    expected |= {"args.scale": value["args"].scale, "args.nested.x": value["args"].nested["x"], "rng": value["rng"]}
    agree(value, expected, container)


class Slotted:
    """An object with slots as well as a dictionary."""

    __slots__ = ("__dict__", "weight")

    def __init__(self) -> None:
        self.weight = torch.zeros(4)
        self.bias = torch.zeros(5)


class Custom(dict[str, object]):
    """An object with keys as well as attributes, a list inside, and itself."""

    def __init__(self) -> None:
        self["key"] = torch.ones(2)
        self["self"] = self
        self.attribute = [torch.zeros(3)]
        self.slotted = Slotted()


@pytest.mark.parametrize("container", CONTAINERS)
def test_objects_of_unknown_classes_that_contain_themselves(container: str) -> None:
    value = Custom()
    expected = {
        "c.key": value["key"],
        "c.attribute.0": value.attribute[0],
        "c.slotted.bias": value.slotted.bias,
        "c.slotted.weight": value.slotted.weight,
    }
    agree({"c": value}, expected, container)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module(container: str) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.LayerNorm(3)))
    expected = {
        "_modules.0._parameters.weight": module[0].weight,
        "_modules.0._parameters.bias": module[0].bias,
        "_modules.1._modules.0._parameters.weight": module[1][0].weight,
        "_modules.1._modules.0._parameters.bias": module[1][0].bias,
    }
    tensors = found(saved(module, container), container)
    assert set(tensors) == set(expected)
    agree(list(module.parameters()), {str(i): x for i, x in enumerate(module.parameters())}, container)


@pytest.mark.parametrize("container", CONTAINERS)
def test_views_of_one_storage_and_tied_tensors(container: str) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "rows": base[1:3],
        "columns": base[:, 2:4],
        "expanded": base[3, 5].expand(2, 5),
        "stepped": base[::2, 1::3],
        "scalar": base[2, 2],
        "empty": base[2:2],
    }
    tensors = agree(value, value, container)
    assert tensors["base"].offset == tensors["tied"].offset
    assert str(tensors["transposed"].tensor) == "F32[6,4:1,6]"
    assert str(tensors["expanded"].tensor) == "F32[2,5:0,0]"


@pytest.mark.parametrize("container", CONTAINERS)
def test_parameters_with_and_without_attributes(container: str) -> None:
    plain, marked = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    marked.scale = torch.ones(1)
    agree({"p": plain, "m": marked}, {"p": plain, "m": marked, "m.scale": marked.scale}, container)


class Subclass(torch.Tensor):  # type: ignore[misc, name-defined]
    """A tensor with attributes."""


def test_a_subclass_of_tensor() -> None:
    tensor = torch.ones(2, 2).as_subclass(Subclass)
    tensor.mask = torch.zeros(2)
    agree({"x": tensor}, {"x": tensor, "x.mask": tensor.mask})


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors() -> None:
    dense = torch.eye(3)
    coo, csr, csc = dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc()
    expected = {
        "coo.indices": coo._indices(),
        "coo.values": coo._values(),
        "csr.crow_indices": csr.crow_indices(),
        "csr.col_indices": csr.col_indices(),
        "csr.values": csr.values(),
        "csc.ccol_indices": csc.ccol_indices(),
        "csc.row_indices": csc.row_indices(),
        "csc.values": csc.values(),
    }
    agree({"coo": coo, "csr": csr, "csc": csc}, expected)


@pytest.mark.filterwarnings("ignore")
def test_quantised_tensors() -> None:
    scales, zeros = torch.tensor([0.1, 0.2]), torch.tensor([3, 4])
    tensor = torch.quantize_per_tensor(torch.randn(2, 3), 0.1, 2, torch.qint8)
    channel = torch.quantize_per_channel(torch.randn(2, 3), scales, zeros, 0, torch.quint8)
    data = saved({"t": tensor, "c": channel})
    tensors = found(data)
    assert list(tensors) == ["t", "c", "c.scales", "c.zero_points"]
    assert str(tensors["t"].tensor) == "QINT8[2,3]"
    assert str(tensors["c"].tensor) == "QUINT8[2,3]"
    assert data[tensors["t"].offset : tensors["t"].end] == tensor.int_repr().numpy().tobytes()
    assert data[tensors["c"].offset : tensors["c"].end] == channel.int_repr().numpy().tobytes()
    assert data[tensors["c.scales"].offset :][:16] == channel.q_per_channel_scales().numpy().tobytes()


def test_packed_tensors_count_elements_not_bytes() -> None:
    pairs = torch.arange(8, dtype=torch.uint8).view(torch.float4_e2m1fn_x2).reshape(2, 4)
    data = saved({"x": pairs, "transposed": pairs.t()})
    tensors = found(data)
    assert list(tensors) == ["x"]
    assert str(tensors["x"].tensor) == "F4[2,8]"
    assert data[tensors["x"].offset : tensors["x"].end] == bytes(range(8))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_bare_tensor_and_bare_storages(container: str) -> None:
    tensor = torch.arange(3.0)
    agree(tensor, {"tensor": tensor}, container)
    agree([tensor.untyped_storage()], {"0": tensor.view(torch.uint8)}, container)


def test_conjugated_and_meta_tensors() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    agree({"x": tensor.conj(), "m": torch.empty(3, device="meta")}, {"x": tensor})


@pytest.mark.parametrize("container", CONTAINERS)
def test_two_tensors_never_share_a_name(container: str) -> None:
    a, b, c, d = (torch.full((1,), float(value)) for value in range(4))
    value = {"a": {"b": a}, "a.b": b, "a.b#2": c, 1: a, "1": d}
    agree(value, {"a.b": a, "a.b#2": b, "a.b#2#2": c, "1": a, "1#2": d}, container)


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_pickle_protocol_that_torch_can_write(protocol: int) -> None:
    file = io.BytesIO()
    torch.save({"x": torch.ones(2), "y": [torch.zeros(1)]}, file, pickle_protocol=protocol)
    assert list(found(file.getvalue())) == ["x", "y.0"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_located_like_any_other_pickle() -> None:
    module = torch.jit.script(torch.nn.Linear(2, 3))
    file = io.BytesIO()
    torch.jit.save(module, file)
    data = file.getvalue()
    weights = {bytes(parameter.untyped_storage()) for parameter in module.parameters()}
    assert {data[item.offset : item.end] for item in found(data).values()} == weights


def test_a_big_endian_file_is_refused() -> None:
    data = saved({"x": torch.ones(2)})
    assert b"little" in data
    with pytest.raises(FormatError, match="little-endian"):
        torch_zip.locate(BytesSource(data.replace(b"little", b"bigbig")))
    old = saved({"x": torch.ones(2)}, "torch_legacy")
    at = old.index(b"\x88", old.index(b"little_endian"))
    with pytest.raises(FormatError, match="little-endian"):
        torch_legacy.locate(BytesSource(old[:at] + b"\x89" + old[at + 1 :]))


def test_bytes_behind_a_legacy_file_are_not_its_business() -> None:
    old = saved({"x": torch.ones(2)}, "torch_legacy")
    assert found(old, "torch_legacy") == found(old + b"more", "torch_legacy")

"""Adapters against PEFT itself: the same weights to within rounding, and everything else refused with a reason."""

from __future__ import annotations

import io
import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from git_theta_btm.adapters.edits import recipe
from git_theta_btm.adapters.files import Update, read_update
from git_theta_btm.adapters.naming import Names
from git_theta_btm.errors import ThetaError
from git_theta_btm.source import BytesSource
from git_theta_btm.tensor import DTYPES, Tensor

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
STATE = {"h.0.q.weight": np.ones((6, 4), "f4"), "h.0.q.bias": np.ones(6, "f4"), "h.1.q.weight": np.ones((6, 4), "f4")}
A, B = np.full((2, 4), 0.5, "f4"), np.full((6, 2), 2.0, "f4")


def applied(kind: str, path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """A model's tensors with an update applied, without a file or a repository."""
    result = dict(state)
    with ExitStack() as stack:
        names = Names(state)
        for edit in read_update(kind, str(path), stack).edits:
            name = names.find(edit.target)
            if name is None:
                raise names.unknown([edit.target])
            old = state[name]
            raw = old.contiguous().view(torch.uint8).numpy().tobytes()
            new = recipe(edit, Tensor(DTYPES[TYPES[old.dtype]], tuple(old.shape))).value(BytesSource(raw))
            data = bytearray(new.read(0, new.size))
            assert new.read(5, 3) == data[5:8], "reads need not begin at an element"
            result[name] = torch.frombuffer(data, dtype=old.dtype).reshape(old.shape)
    return result


def arrays(state: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(array) for name, array in state.items()}


def adapter(folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(
        {name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / "adapter_model.safetensors"
    )
    return folder


def lora(folder: Path, module: str = "h.0.q", a: Any = A, b: Any = B, **config: Any) -> Path:
    prefix = f"base_model.model.{module}"
    return adapter(folder, {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}, **config)


# -- against PEFT ----------------------------------------------------------------------------------------------------


def network(kind: str) -> Any:
    """A small model of the kind that PEFT adapts, with numbers that are all different."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        layer: Any = transformers.pytorch_utils.Conv1D
        layers = {"c_attn": layer(48, 16), "square": layer(16, 16), "wte": torch.nn.Embedding(30, 16)}
    else:
        layers = {"proj": torch.nn.Linear(16, 48), "square": torch.nn.Linear(16, 16), "conv": torch.nn.Conv2d(3, 8, 3)}
    model = torch.nn.ModuleDict({"h": torch.nn.ModuleList([torch.nn.ModuleDict(layers)])})
    model["norm"] = torch.nn.LayerNorm(16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {"target_modules": ["proj", "square"], "lora_alpha": 12}),
    "convolution": ("linear", {"target_modules": ["conv"]}),
    "rslora": ("linear", {"target_modules": ["proj"], "use_rslora": True, "lora_alpha": 3}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "square"], "fan_in_fan_out": True}),
    "embedding": ("gpt2", {"target_modules": ["wte"]}),
    "patterns": (
        "linear",
        {"target_modules": ["proj", "square"], "rank_pattern": {"square": 3}, "alpha_pattern": {r"h\.\d+\.proj": 7}},
    ),
    "whole": ("linear", {"target_modules": ["proj"], "modules_to_save": ["norm"], "bias": "all"}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_peft(tmp_path: Path, case: str, dtype: str) -> None:
    peft = pytest.importorskip("peft")
    kind, options = CASES[case]
    model = network(kind).to(getattr(torch, dtype))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, **options), autocast_adapter_dtype=False)
    for parameter in filter(lambda parameter: parameter.requires_grad, adapted.parameters()):
        torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path)
    merged = adapted.merge_and_unload().state_dict()
    after = applied("low-rank", tmp_path, before)
    rounding = {"float32": 1e-6, "bfloat16": 2**-7, "float16": 2**-10}[dtype]
    assert any(not torch.equal(after[name], before[name]) for name in after)
    for name, tensor in after.items():
        limit = rounding * 8 * merged[name].float().abs().max()  # PEFT rounds the product, its sum and the total
        assert tensor.dtype == before[name].dtype
        assert (tensor.float() - merged[name].float()).abs().max() <= limit, name


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["linear", "gpt2"])
def test_ia3_weights_are_those_of_peft(tmp_path: Path, kind: str) -> None:
    peft = pytest.importorskip("peft")
    model = network(kind)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)  # an output's bias is scaled, too; see the tests of the command
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wide = "proj" if kind == "linear" else "c_attn"
    config = peft.IA3Config(
        target_modules=[wide, "square"], feedforward_modules=["square"], fan_in_fan_out=kind == "gpt2"
    )
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "ia3" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path)
    merged = adapted.merge_and_unload().state_dict()
    after = applied("ia3", tmp_path, before)
    for name, tensor in after.items():
        assert torch.allclose(tensor, merged[name], rtol=1e-6), name
        assert torch.equal(tensor, before[name]) == (not name.endswith((f"{wide}.weight", "square.weight")))


# -- what the update says --------------------------------------------------------------------------------------------


def test_the_scale_and_the_product(tmp_path: Path) -> None:
    after = applied("low-rank", lora(tmp_path), arrays(STATE))
    assert np.array_equal(after["h.0.q.weight"], 1 + 4 / 2 * (B @ A))
    assert torch.equal(after["h.1.q.weight"], torch.ones(6, 4))


@pytest.mark.parametrize("marker", ["lora_A.weight", "lora_A.default.weight", "lora_A.default", "lora_A"])
def test_spellings_of_peft_versions(tmp_path: Path, marker: str) -> None:
    tensors = {f"base_model.model.h.0.q.{marker}": A, f"base_model.model.h.0.q.{marker.replace('_A', '_B')}": B}
    assert applied("low-rank", adapter(tmp_path, tensors), arrays(STATE))["h.0.q.weight"][0, 0] == 5


def test_the_base_that_an_adapter_was_made_for(tmp_path: Path) -> None:
    def bases(**config: Any) -> Update:
        with ExitStack() as stack:
            return read_update("low-rank", str(lora(tmp_path, **config)), stack)

    assert bases().bases == ()
    assert bases(theta_base="0" * 64).bases == ("0" * 64,)
    assert bases(theta_base=["1", "2"]).bases == ("1", "2")
    with pytest.raises(ThetaError, match="theta_base"):
        bases(theta_base=3)


def test_a_sparse_update(tmp_path: Path) -> None:
    update = {"h.0.q.weight.indices": np.array([5, 0, 23]), "h.0.q.weight.values": np.array([1, 2, -1], "f4")}
    save_file(update, tmp_path / "delta.safetensors")
    after = applied("sparse", tmp_path / "delta.safetensors", arrays(STATE))["h.0.q.weight"].flatten()
    assert after.nonzero().flatten().tolist() == list(range(23))
    assert (after[0], after[5], after[1]) == (3, 2, 1)


@pytest.mark.parametrize(
    ("positions", "values", "words"),
    [
        ([24], [1.0], "outside"),
        ([-1], [1.0], "outside"),
        ([3, 3], [1.0, 1.0], "twice"),
        ([3, 4], [1.0], "2\\] positions"),
    ],
)
def test_sparse_updates_that_do_not_fit(tmp_path: Path, positions: list[int], values: list[float], words: str) -> None:
    update = {"h.0.q.weight.indices": np.array(positions), "h.0.q.weight.values": np.array(values, "f4")}
    save_file(update, tmp_path / "delta.safetensors")
    with pytest.raises(ThetaError, match=words):
        applied("sparse", tmp_path / "delta.safetensors", arrays(STATE))


def test_a_sparse_update_is_made_of_pairs(tmp_path: Path) -> None:
    save_file({"h.0.q.weight.indices": np.array([1])}, tmp_path / "delta.safetensors")
    with pytest.raises(ThetaError, match=r"h\.0\.q\.weight\.values is in none"):
        applied("sparse", tmp_path / "delta.safetensors", arrays(STATE))


def test_a_dense_update_takes_the_type_of_the_model(tmp_path: Path) -> None:
    file = io.BytesIO()
    new: dict[str, Any] = {"h.0.q.weight": np.full((6, 4), 1 / 3), "h.0.q.bias": np.zeros(6, "f4")}
    np.savez(file, **new)
    (tmp_path / "new.npz").write_bytes(file.getvalue())
    after = applied("dense", tmp_path / "new.npz", arrays(STATE))
    assert after["h.0.q.weight"].unique().tolist() == [np.float32(1 / 3)]
    assert not after["h.0.q.bias"].any()


def test_a_transposed_view_in_memory(tmp_path: Path) -> None:
    """A torch file keeps ``w.T`` as it lies in memory."""
    with ExitStack() as stack:
        (edit,) = read_update("low-rank", str(lora(tmp_path, a=A * np.arange(4, dtype="f4"))), stack).edits
        raw = np.ones((4, 6), "f4").tobytes()
        new = recipe(edit, Tensor(DTYPES["F32"], (6, 4), (1, 6))).value(BytesSource(raw))
        found = np.frombuffer(new.read(0, new.size), "f4").reshape(4, 6).T
        with pytest.raises(ThetaError, match="one piece"):
            recipe(edit, Tensor(DTYPES["F32"], (6, 4), (8, 1)))
    assert np.array_equal(found, 1 + 2 * (B @ (A * np.arange(4, dtype="f4"))))


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [
        ("h.0.q.weight", ["h.0.q.weight", "transformer.h.0.q.weight"], "h.0.q.weight"),
        ("transformer.h.0.q.weight", ["h.0.q.weight"], "h.0.q.weight"),
        ("h.0.q.weight", ["transformer.h.0.q.weight"], "transformer.h.0.q.weight"),
        (
            "model.layers.0.q.weight",
            ["model.language_model.layers.0.q.weight"],
            "model.language_model.layers.0.q.weight",
        ),
        ("h.0.q.weight", ["h.1.q.weight"], None),
        ("layers.0.q.weight", ["layers.10.q.weight", "0.q.weight"], None),
        ("lm_head.weight", ["weight"], None),
    ],
)
def test_names(asked: str, there: list[str], found: str | None) -> None:
    assert Names(there).find(asked) == found


def test_ambiguous_and_unknown_names() -> None:
    names = Names(["encoder.h.0.q.weight", "decoder.h.0.q.weight"])
    with pytest.raises(ThetaError, match=r"h\.0\.q\.weight may be decoder\.h\.0\.q\.weight or encoder"):
        names.find("h.0.q.weight")
    message = str(names.unknown(["decoder.h.0.k.weight", *"abcde"]))
    assert "no parameter decoder.h.0.k.weight (closest: decoder.h.0.q.weight" in message
    assert message.endswith("and 3 more")


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "type 'IA3', not LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"target_parameters": ["experts.w"]}, "target_parameters"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": ["x"]}, "init_lora_weights"),
        ({"r": 8}, "of rank 2, .* says 8"),
        ({"lora_alpha": "much"}, "lora_alpha of h.0.q is much"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"alpha_pattern": {"(a+)+": 1}}, "more than names"),
        ({"alpha_pattern": {"a*b*c*": 1}}, "more than names"),
        ({"alpha_pattern": {"[": 1}}, "wrong"),
        ({"alpha_pattern": ["q"]}, "no object"),
        ({"rank_pattern": {"q": 3}}, "says 3"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ThetaError, match=words):
        applied("low-rank", lora(tmp_path, **config), arrays(STATE))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"h.0.q.lora_A.weight": A}, "h.0.q: a factor is missing"),
        ({"h.0.q.lora_A.weight": A, "h.0.q.lora_B.weight": B, "h.0.q.lora_A.x.weight": A}, "two adapters"),
        ({"h.0.q.lora_magnitude_vector": A}, "not supported"),
        ({"h.0.q.lora_A.weight": A, "h.0.q.lora_B.weight": B, "h.0.q.lora_B.bias": A}, "not supported"),
        ({"wte.token_adapter.trainable_tokens_delta": A}, "not supported"),
        ({"x" * 301: A}, "301 characters"),
        ({"h.9.q.lora_A.weight": A, "h.9.q.lora_B.weight": B}, r"no parameter h\.9\.q\.weight \(closest: h\..\.q"),
        ({"h.0.q.lora_A.weight": A.T, "h.0.q.lora_B.weight": B.T}, "rank 4"),
        ({"h.0.q.lora_A.weight": A[:, :3], "h.0.q.lora_B.weight": B}, r"parameter of \[6,3\], this one is F32\[6,4\]"),
        ({"h.0.q.lora_A.weight": A, "h.0.q.lora_B.weight": B.astype("f2")}, "does not fit"),
        ({"h.0.q.lora_A.weight": A.astype("i4"), "h.0.q.lora_B.weight": B.astype("i4")}, "cannot compute with I32"),
        ({"h.0.q.lora_A.weight": A, "h.0.q.lora_B.weight": B[0]}, "does not fit"),
        ({"h.0.q.lora_A.weight": A[0], "h.0.q.lora_B.weight": B}, "rank 4"),
        ({"h.0.q.lora_A.weight": A[:0], "h.0.q.lora_B.weight": B[:, :0]}, "rank 0"),
        ({"h.0.q.lora_A.weight": np.ones((1025, 4)), "h.0.q.lora_B.weight": np.ones((6, 1025))}, "h.0.q.*rank 1025"),
        ({"h.0.q.bias": B}, r"parameter of \[6,2\], this one is F32\[6\]"),
    ],
)
def test_tensors_that_are_refused(tmp_path: Path, tensors: dict[str, Any], words: str) -> None:
    ranks = {"h.0.q": 1025} if "1025" in words else {}
    with pytest.raises(ThetaError, match=words):
        applied("low-rank", adapter(tmp_path, tensors, rank_pattern=ranks), arrays(STATE))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = lora(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    (folder / "adapter_model.bin").chmod(0)
    with pytest.raises(ThetaError, match="is a pickle, which could run code"):
        applied("low-rank", folder, arrays(STATE))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"', "\xff"])
def test_broken_configurations(tmp_path: Path, text: str) -> None:
    folder = lora(tmp_path / "adapter")
    (folder / "adapter_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ThetaError, match=re.escape(str(folder / "adapter_config.json"))):
        applied("low-rank", folder, arrays(STATE))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ThetaError, match="is not there"):
        applied("low-rank", folder, arrays(STATE))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(
    config=st.dictionaries(
        st.sampled_from(
            ["r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "theta_base",
             "init_lora_weights", "peft_type"]
        ),
        JSON,
        max_size=3,
    ),
    rename=st.sampled_from(["", ".", "lora_A", "ia3_l", "lora_A.lora_B", "..weight"]) | st.text(max_size=8),
)  # fmt: skip
def test_no_adapter_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any], rename: str
) -> None:
    folder = tmp_path_factory.mktemp("adapter")
    adapter(folder, {"h.0.q.lora_A.weight": A, "h.0.q.lora_B.weight": B, f"h.0.q.{rename}": A}, **config)
    try:
        after = applied("low-rank", folder, arrays(STATE))
    except ThetaError as error:
        assert len(str(error)) < 2000
    else:
        assert after.keys() == STATE.keys()

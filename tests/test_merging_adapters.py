"""Merged adapters against PEFT: what it makes of them is the weighted sum, and nothing but the weighted sum."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from git_theta_btm.cli.adapters import merge_adapters as command
from git_theta_btm.errors import ThetaError
from git_theta_btm.merging.adapters import merge_adapters

torch = pytest.importorskip("torch")

A, B = np.full((2, 4), 0.5, "f4"), np.full((6, 2), 2.0, "f4")
PREFIX = "base_model.model.h.0.q"


def lora(folder: Path, a: Any = A, b: Any = B, extra: dict[str, Any] | None = None, **config: Any) -> str:
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": len(a), "lora_alpha": 2 * len(a), **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    tensors = {f"{PREFIX}.lora_A.weight": a, f"{PREFIX}.lora_B.weight": b, **(extra or {})}
    save_file(tensors, folder / "adapter_model.safetensors")
    return str(folder)


# -- against PEFT ----------------------------------------------------------------------------------------------------


def network(seed: int = 0) -> Any:
    """A small model of the kinds of layers that LoRA adapts; one module's name ends like another's."""
    torch.manual_seed(seed)
    layers = {
        "proj": torch.nn.Linear(16, 24),
        "square": torch.nn.Linear(16, 16),
        "conv": torch.nn.Conv2d(3, 8, 3),
        "wte": torch.nn.Embedding(30, 16),
    }
    model = torch.nn.ModuleDict({"h": torch.nn.ModuleList([torch.nn.ModuleDict(layers)])})
    model["proj"] = torch.nn.Linear(16, 24)
    return model


EXPERTS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8, "target_modules": ["h.0.proj", "square", "conv", "wte"]},
    {"r": 3, "lora_alpha": 5, "target_modules": r"(h\.0\.)?proj|.*square", "use_rslora": True},
    {"r": 2, "target_modules": ["square", "conv", "wte"], "rank_pattern": {"conv": 5}, "alpha_pattern": {"wte": 7}},
]
WEIGHTS = (0.7, -0.2, 1 / 3)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[dict[str, Any]]]:
    """Adapters of the same base as PEFT saves them, and what each adds to it."""
    peft = pytest.importorskip("peft")
    base = network().state_dict()
    folders, deltas = [], []
    for place, options in enumerate(EXPERTS):
        folder = tmp_path_factory.mktemp("expert")
        adapted = peft.get_peft_model(network(), peft.LoraConfig(**options))
        torch.manual_seed(place + 1)
        for parameter in filter(lambda parameter: parameter.requires_grad, adapted.parameters()):
            torch.nn.init.normal_(parameter)
        adapted.save_pretrained(folder)
        folders.append(str(folder))
        deltas.append(delta(folder, base))
    return folders, deltas


def delta(folder: Any, base: dict[str, Any]) -> dict[str, Any]:
    """What PEFT adds to the weights for an adapter, in float64."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(network().double(), str(folder), autocast_adapter_dtype=False)
    state = merged.double().merge_and_unload().state_dict()
    return {name: (state[name] - base[name].double()).numpy() for name in base}


def weighted(deltas: list[dict[str, Any]], weights: tuple[float, ...] = WEIGHTS) -> dict[str, Any]:
    return {name: sum(w * item[name] for w, item in zip(weights, deltas, strict=True)) for name in deltas[0]}


def test_peft_makes_the_weighted_sum_of_it(
    experts: tuple[list[str], list[dict[str, Any]]], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folders, deltas = experts
    made = merge_adapters(folders, str(tmp_path / "all"), WEIGHTS)
    assert made.exact
    assert made.ranks == {"h.0.conv": 9, "h.0.proj": 7, "h.0.square": 9, "h.0.wte": 6, "proj": 3}
    expected = weighted(deltas)
    for name, found in delta(tmp_path / "all", network().state_dict()).items():
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-6 * max(1, np.abs(expected[name]).max()))
    assert not [warning for warning in recwarn if "missing" in str(warning.message).lower()]


def test_without_weights_it_is_the_mean(experts: tuple[list[str], list[dict[str, Any]]], tmp_path: Path) -> None:
    folders, deltas = experts
    merge_adapters(folders[:2], str(tmp_path / "all"))
    expected = weighted(deltas[:2], (0.5, 0.5))
    for name, found in delta(tmp_path / "all", network().state_dict()).items():
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-6 * max(1, np.abs(expected[name]).max()))


def test_merging_twice_is_merging_at_once(experts: tuple[list[str], list[dict[str, Any]]], tmp_path: Path) -> None:
    folders, _ = experts
    merge_adapters(folders[:2], str(tmp_path / "two"), WEIGHTS[:2])
    merge_adapters([str(tmp_path / "two"), folders[2]], str(tmp_path / "three"), (1.0, WEIGHTS[2]))
    merge_adapters(folders, str(tmp_path / "all"), WEIGHTS)
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("three", "all"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.parametrize("rank", [1, 5, 9])
def test_a_rank_keeps_the_largest_singular_values(
    experts: tuple[list[str], list[dict[str, Any]]], tmp_path: Path, rank: int
) -> None:
    folders, deltas = experts
    made = merge_adapters(folders, str(tmp_path / "all"), WEIGHTS, rank)
    assert max(made.ranks.values()) <= rank
    assert made.exact == (rank == 9)
    expected, lost, total = weighted(deltas), 0.0, 0.0
    for name, found in delta(tmp_path / "all", network().state_dict()).items():
        flat = expected[name].reshape(len(expected[name]), -1)
        if not flat.any():
            continue
        values = np.linalg.svd(flat, compute_uv=False)
        error = np.linalg.norm(found.reshape(flat.shape) - flat)
        assert error == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-5 * values[0])
        lost, total = lost + (values[rank:] ** 2).sum(), total + (values**2).sum()
    assert made.lost == pytest.approx(np.sqrt(lost / total), abs=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_of_a_causal_model_loads_into_it(tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    settings = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    folders = []
    for place in range(2):
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings))
        model.config._name_or_path = "seed"
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
        )
        torch.manual_seed(place + 1)
        for parameter in filter(lambda parameter: parameter.requires_grad, adapted.parameters()):
            torch.nn.init.normal_(parameter)
        adapted.save_pretrained(tmp_path / str(place))
        folders.append(str(tmp_path / str(place)))
    merge_adapters(folders, str(tmp_path / "both"))
    config = peft.PeftConfig.from_pretrained(tmp_path / "both")
    assert (config.task_type, config.fan_in_fan_out, config.r) == ("CAUSAL_LM", True, 4)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings))
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "both")
    assert sum("lora_A" in name for name, _ in loaded.named_parameters()) == 2


# -- details ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_factors_keep_their_bits_and_weights_are_rounded_once(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(1)
    pairs = [(random.standard_normal((2, 4)).astype(dtype), random.standard_normal((6, 2)).astype(dtype)) for _ in "ab"]
    folders = [lora(tmp_path / str(place), *pair) for place, pair in enumerate(pairs)]
    merge_adapters(folders, str(tmp_path / "both"), (0.3, 0.1))
    found = load_file(tmp_path / "both" / "adapter_model.safetensors")
    wide = "f8" if dtype == "f8" else "f4"
    stacked = np.vstack([a for a, _ in pairs]).astype(wide)
    beside = np.hstack([weight * 2 * b.astype("f8") for weight, (_, b) in zip((0.3, 0.1), pairs, strict=True)])
    np.testing.assert_array_equal(found[f"{PREFIX}.lora_A.weight"], stacked)
    np.testing.assert_array_equal(found[f"{PREFIX}.lora_B.weight"], beside.astype(wide))


def test_a_weight_of_nothing_costs_no_rank(tmp_path: Path) -> None:
    folders = [lora(tmp_path / name) for name in "abc"]
    assert merge_adapters(folders, str(tmp_path / "out"), (1.0, 0.0, 2.0)).ranks == {"h.0.q": 4}


def test_files_have_the_callers_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        merge_adapters([lora(tmp_path / "a")], str(tmp_path / "out"))
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"adapter_config.json": 0o640, "adapter_model.safetensors": 0o640}


def test_a_stated_base_is_kept(tmp_path: Path) -> None:
    folders = [lora(tmp_path / "a", theta_base="1" * 64), lora(tmp_path / "b"), lora(tmp_path / "c", theta_base="2")]
    merge_adapters(folders[:2], str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["theta_base"] == ["1" * 64]
    with pytest.raises(ThetaError, match="different versions"):
        merge_adapters(folders, str(tmp_path / "other"))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "use_dora"),
    "another kind": ({"peft_type": "IA3"}, "not LORA"),
    "a whole layer": ({"extra": {"base_model.model.norm.weight": A}}, "norm.weight whole"),
    "a bias": ({"extra": {f"{PREFIX}.base_layer.bias": A}}, "whole"),
    "integers": ({"a": A.astype("i4")}, "cannot compute"),
    "other columns": ({"a": np.ones((2, 5), "f4")}, "different sizes"),
    "other rows": ({"b": np.ones((7, 2), "f4")}, "different sizes"),
    "no product": ({"b": np.ones((6, 3), "f4")}, "does not fit"),
    "turned": ({"fan_in_fan_out": True}, "fan_in_fan_out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_added_up_is_refused(tmp_path: Path, case: str) -> None:
    options, message = REFUSED[case]
    folders = [lora(tmp_path / "a"), lora(tmp_path / "b", **options)]
    with pytest.raises(ThetaError, match=message):
        merge_adapters(folders, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 3.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_weights_that_make_no_sense(tmp_path: Path, weights: tuple[float, ...]) -> None:
    folders = [lora(tmp_path / "a"), lora(tmp_path / "b")]
    with pytest.raises(ThetaError, match="2 adapters take as many weights"):
        merge_adapters(folders, str(tmp_path / "out"), weights)


def test_what_is_not_finite_has_no_singular_values(tmp_path: Path) -> None:
    folder = lora(tmp_path / "a", np.full((2, 4), np.nan, "f4"))
    with pytest.raises(ThetaError, match="h.0.q has factors that are not finite"):
        merge_adapters([folder], str(tmp_path / "out"), rank=1)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folders = [lora(tmp_path / "a"), lora(tmp_path / "b")]
    with pytest.raises(ThetaError, match="exists already"):
        merge_adapters(folders, folders[0])


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    folders = [lora(tmp_path / "a"), lora(tmp_path / "b")]
    out = str(tmp_path / "out")
    done = CliRunner().invoke(command, [*folders, "--out", out, "--weights", "0.5,1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stderr == f"{out}: 2 adapters merged, 1 module of rank 4, exact\n"
    done = CliRunner().invoke(command, [*folders, "--out", f"{out}.1", "--rank", "1", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) | {"lost": 0} == {
        "version": 1, "out": f"{out}.1", "modules": {"h.0.q": 1}, "exact": False, "lost": 0,
    }  # fmt: skip


def test_the_command_refuses_words_for_weights(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [lora(tmp_path / "a"), "--out", str(tmp_path / "out"), "--weights", "half"])
    assert done.exit_code == 2
    assert "'half' is not numbers" in done.stderr

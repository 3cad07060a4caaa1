"""Upcycled models against transformers: what it loads computes what the dense models did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from git_theta_btm.cli.upcycle import upcycle as command
from git_theta_btm.errors import ThetaError
from git_theta_btm.merging.folders import read_model
from git_theta_btm.merging.upcycling import Routing, upcycle

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOKENS = torch.randint(0, 60, (2, 12), generator=torch.Generator().manual_seed(7))
GATE = "model.layers.1.block_sparse_moe.gate.weight"
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "wide heads": {"head_dim": 16},
    "rotary": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}},
    "tied": {"tie_word_embeddings": True},
}


def dense(kind: str = "llama", seed: int = 0, **options: Any) -> Any:
    """A small model with weights so large that every part of it shows in what it says."""
    family = "Mistral" if kind == "mistral" else "Llama"
    config = getattr(transformers, f"{family}Config")(**SIZES, **KINDS.get(kind, {}), **options)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def saved(folder: Path, model: Any, **options: Any) -> str:
    model.save_pretrained(folder, **options)
    return str(folder)


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(TOKENS).logits


def loaded(folder: Any, dtype: Any = None) -> Any:
    model, about = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=dtype or torch.float32
    )
    assert not about["missing_keys"]
    assert not about["unexpected_keys"]
    assert type(model).__name__ == "MixtralForCausalLM"
    return model.eval()


def tensors(folder: Any) -> dict[str, Any]:
    return {
        name: array for file in sorted(Path(folder).glob("*.safetensors")) for name, array in load_file(file).items()
    }


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [saved(tmp_path_factory.mktemp("expert"), dense(seed=seed)) for seed in range(3)]


# -- against transformers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_equal_experts_are_the_dense_model(tmp_path: Path, kind: str) -> None:
    model = dense(kind)
    folder = saved(tmp_path / "dense", model)
    made = upcycle([folder] * 3, str(tmp_path / "mixture"), routing=Routing(top_k=2))
    mixture = loaded(tmp_path / "mixture")
    assert (mixture.config.num_local_experts, mixture.config.num_experts_per_tok) == (3, 2)
    torch.testing.assert_close(logits(mixture), logits(model), rtol=1e-4, atol=1e-4)
    assert (made.experts, made.layers) == (3, 2)
    assert made.elements == sum(array.size for array in tensors(tmp_path / "mixture").values())


def test_a_configuration_of_transformers_4(tmp_path: Path) -> None:
    """It says less, and Mixtral's defaults are not Llama's."""
    model = dense()
    folder = Path(saved(tmp_path / "dense", model))
    kept = ("hidden_size", "vocab_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "model_type")
    config = json.loads((folder / "config.json").read_text())
    old = {key: config[key] for key in (*kept, "num_key_value_heads", "max_position_embeddings")}
    (folder / "config.json").write_text(json.dumps(old | {"rope_theta": 10000.0, "rope_scaling": None}))
    upcycle([str(folder)] * 2, str(tmp_path / "mixture"))
    torch.testing.assert_close(logits(loaded(tmp_path / "mixture")), logits(model), rtol=1e-4, atol=1e-4)


def test_each_expert_answers_for_itself(tmp_path: Path) -> None:
    """With one expert a token and a router that knows only one of them, the mixture is that expert."""
    seed = dense()
    folders, answers = [], []
    for place in range(3):
        model = dense()
        for name, parameter in model.named_parameters():
            if ".mlp." in name:
                torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(place))
        folders.append(saved(tmp_path / str(place), model))
        answers.append(logits(model))
    upcycle(folders, str(tmp_path / "mixture"), routing=Routing(1, "zeros"))
    mixture = loaded(tmp_path / "mixture")
    torch.testing.assert_close(mixture.model.embed_tokens.weight, seed.model.embed_tokens.weight)
    for place, answer in enumerate(answers):
        for layer in mixture.model.layers:
            layer.mlp.register_forward_pre_hook(_Send(layer.mlp.gate, place))
        torch.testing.assert_close(logits(mixture), answer, rtol=1e-4, atol=1e-4)


class _Send:
    """Turns a router towards one expert, whatever the token is."""

    def __init__(self, gate: Any, place: int) -> None:
        self.gate, self.place = gate, place

    def __call__(self, block: Any, inputs: tuple[Any, ...]) -> None:
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        direction = torch.linalg.lstsq(hidden, torch.ones(len(hidden), 1)).solution[:, 0]
        assert (hidden @ direction).min() > 0, "fewer tokens than dimensions all lie on one side of some plane"
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.weight[self.place] = direction


# -- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(), (0.7, 0.2, 0.1), (1.0, 0.0, -3.0)])
def test_all_else_is_averaged_and_rounded_once(experts: list[str], tmp_path: Path, weights: tuple[float, ...]) -> None:
    upcycle(experts, str(tmp_path / "mixture"), weights)
    found, dense_ones = tensors(tmp_path / "mixture"), [tensors(folder) for folder in experts]
    shares = weights or (1.0,) * 3
    for name in dense_ones[0]:
        if ".mlp." in name:
            continue
        summed = sum(w * one[name].astype("f8") for w, one in zip(shares, dense_ones, strict=True) if w)
        np.testing.assert_array_equal(found[name], (summed / fsum(shares)).astype("f4"), err_msg=name)


def test_feed_forward_blocks_keep_their_bits(experts: list[str], tmp_path: Path) -> None:
    upcycle(experts, str(tmp_path / "mixture"))
    found = tensors(tmp_path / "mixture")
    for place, folder in enumerate(experts):
        for name, array in tensors(folder).items():
            if ".mlp." in name:
                block, _, role = name.partition(".mlp.")
                word = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}[role.removesuffix(".weight")]
                mixed = found.pop(f"{block}.block_sparse_moe.experts.{place}.{word}.weight")
                np.testing.assert_array_equal(mixed, array)
    assert not [name for name in found if "experts" in name]


def test_averages_of_bfloat16_are_correctly_rounded(tmp_path: Path) -> None:
    models = [dense(seed=seed).to(torch.bfloat16) for seed in range(3)]
    folders = [saved(tmp_path / str(seed), model) for seed, model in enumerate(models)]
    upcycle(folders, str(tmp_path / "mixture"))
    mixture = loaded(tmp_path / "mixture", torch.bfloat16)
    exact = sum(model.lm_head.weight.double() for model in models) / 3
    neighbours = [torch.nextafter(mixture.lm_head.weight, torch.tensor(way, dtype=torch.bfloat16)) for way in (-9, 9)]
    error = (mixture.lm_head.weight.double() - exact).abs()
    assert all((error <= (other.double() - exact).abs()).all() for other in neighbours)
    folder = [folders[0]] * 3
    upcycle(folder, str(tmp_path / "same"))
    assert torch.equal(loaded(tmp_path / "same", torch.bfloat16).lm_head.weight, models[0].lm_head.weight)


def test_the_router_is_normal_and_follows_from_the_seed(experts: list[str], tmp_path: Path) -> None:
    names = iter("abcdefgh")

    def gates(routing: Routing) -> dict[str, Any]:
        folder = tmp_path / next(names)
        upcycle(experts, str(folder), routing=routing)
        return {name: array for name, array in tensors(folder).items() if name.endswith("gate.weight")}

    one, again, other, zeros = gates(Routing()), gates(Routing(1)), gates(Routing(seed=1)), gates(Routing(2, "zeros"))
    assert one[GATE].shape == (3, 32)
    for name, array in one.items():
        np.testing.assert_array_equal(array, again[name])
        assert not np.array_equal(array, other[name])
        assert not zeros[name].any()
    numbers = np.concatenate([array.ravel() for group in (one, other) for array in group.values()])
    assert len(set(numbers.tolist())) == len(numbers)
    assert abs(numbers.mean()) < 4 * 0.02 / np.sqrt(len(numbers))
    assert numbers.std() == pytest.approx(0.02, rel=0.15)
    # a number of this key and place is the same for ever, on every machine
    assert one[GATE][0, 0] == np.float32(-0.005007846)


def test_shards_in_and_out(tmp_path: Path) -> None:
    models = [dense(seed=seed) for seed in range(2)]
    whole = [saved(tmp_path / f"whole{seed}", model) for seed, model in enumerate(models)]
    parts = [saved(tmp_path / f"parts{seed}", model, max_shard_size="20KB") for seed, model in enumerate(models)]
    assert len(list(Path(parts[0]).glob("*.safetensors"))) > 2
    upcycle(whole, str(tmp_path / "one"))
    upcycle(parts, str(tmp_path / "many"), shard=50_000)
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert len(files) > 2
    one, many = tensors(tmp_path / "one"), tensors(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(np.array_equal(one[name], many[name]) for name in one)
    torch.testing.assert_close(logits(loaded(tmp_path / "many")), logits(loaded(tmp_path / "one")))


def test_the_tokenizer_comes_along(experts: list[str], tmp_path: Path) -> None:
    folder = saved(tmp_path / "dense", dense())
    (Path(folder) / "tokenizer.json").write_text("{}")
    (Path(folder) / "secret.txt").write_text("?")
    upcycle([folder, experts[0]], str(tmp_path / "mixture"))
    assert (tmp_path / "mixture" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "mixture" / "secret.txt").exists()


# -- what does not fit -----------------------------------------------------------------------------------------------


@pytest.fixture
def pair(experts: list[str], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An expert, and one to spoil; neither leaves anything behind when it is refused."""
    spoilt = Path(saved(tmp_path / "spoilt", dense()))
    yield experts[0], spoilt
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "different values of model_type"),
        ({"rms_norm_eps": 0.1}, "rms_norm_eps"),
        ({"attention_bias": True}, "attention_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_configurations_that_do_not_fit(pair: tuple[str, Path], change: dict[str, Any], message: str) -> None:
    expert, spoilt = pair
    config = json.loads((spoilt / "config.json").read_text())
    (spoilt / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ThetaError, match=message):
        upcycle([expert, str(spoilt)], str(spoilt.parent / "out"))


def test_another_architecture_is_named(pair: tuple[str, Path]) -> None:
    _, spoilt = pair
    (spoilt / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ThetaError, match="'gpt2' model: only llama and mistral"):
        upcycle([str(spoilt)] * 2, str(spoilt.parent / "out"))


NORM, UP = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NORM: None}, f"only one of .* has {NORM}"),
        ({NORM: np.ones(5, "f4")}, rf"{NORM} is F32\[32\] in .* and F32\[5\] in"),
        ({NORM: np.ones(32, "f2")}, r"F16\[32\]"),
    ],
)
def test_tensors_that_do_not_fit(pair: tuple[str, Path], changes: dict[str, Any], message: str) -> None:
    expert, spoilt = pair
    save_file(_changed(spoilt, changes), spoilt / "model.safetensors")
    with pytest.raises(ThetaError, match=message):
        upcycle([expert, str(spoilt)], str(spoilt.parent / "out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({UP: None}, "up_proj.weight: a feed-forward block is"),
        ({"model.layers.0.mlp.extra": np.ones((5, 5), "f4")}, "extra: a feed-forward block is"),
        ({"model.norm.bias": np.ones(5, "f4")}, "no biases"),
        ({NORM: np.ones(32, "i8")}, r"I64\[32\], which has no place"),
        ({UP: np.ones(32, "f4")}, r"F32\[32\], which has no place"),
        ({UP.replace("up", word): None for word in ("up", "gate", "down")}, "1 feed-forward blocks"),
    ],
)
def test_tensors_that_mixtral_has_no_place_for(pair: tuple[str, Path], changes: dict[str, Any], message: str) -> None:
    _, spoilt = pair
    save_file(_changed(spoilt, changes), spoilt / "model.safetensors")
    with pytest.raises(ThetaError, match=message):
        upcycle([str(spoilt)] * 2, str(spoilt.parent / "out"))


def _changed(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in (tensors(folder) | changes).items() if array is not None}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "config.json is not there"),
        ("config.json", b"[" * 100_000, "no JSON"),
        ("config.json", b"[]", "no JSON object"),
        ("model.safetensors", None, "has no model.safetensors"),
        ("model.safetensors", b"PK\x03\x04", "no safetensors file"),
    ],
)
def test_folders_that_are_no_models(pair: tuple[str, Path], name: str, content: bytes | None, message: str) -> None:
    _, spoilt = pair
    (spoilt / name).unlink()
    if content is not None:
        (spoilt / name).write_bytes(content)
    with pytest.raises(ThetaError, match=message):
        upcycle([str(spoilt)] * 2, str(spoilt.parent / "out"))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {"a": 1}}, "no weight_map"),
        ({"weight_map": {"a": "../other/model.safetensors"}}, "has no file"),
        ({"weight_map": {"a": "none.safetensors"}}, "has no file"),
        ({"weight_map": {"a": "part"}}, "part has no tensor 'a'"),
    ],
)
def test_an_index_that_lies(tmp_path: Path, index: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"b": np.ones(3, "f4")}, tmp_path / "part")
    with pytest.raises(ThetaError, match=message):
        read_model(str(tmp_path))


@pytest.mark.parametrize(
    ("weights", "routing", "message"),
    [
        ((1.0,), Routing(), "as many weights"),
        ((1.0, float("nan")), Routing(), "as many weights"),
        ((1.0, -1.0), Routing(), "sum to 0"),
        ((), Routing(3), "no mixture"),
        ((), Routing(0), "no mixture"),
    ],
)
def test_numbers_that_make_no_sense(
    pair: tuple[str, Path], weights: tuple[float, ...], routing: Routing, message: str
) -> None:
    expert, spoilt = pair
    with pytest.raises(ThetaError, match=message):
        upcycle([expert, str(spoilt)], str(spoilt.parent / "out"), weights, routing)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command(experts: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "mixture")
    options = ["--out", out, "--weights", "1,2,1", "--top-k", "1", "--router", "zeros"]
    done = CliRunner().invoke(command, [*experts, *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stderr.startswith(f"{out}: 3 experts in 2 layers, ")
    assert json.loads((tmp_path / "mixture" / "config.json").read_text())["num_experts_per_tok"] == 1
    again = CliRunner().invoke(command, [*experts, "--out", f"{out}.1", "--json"], catch_exceptions=False)
    told = json.loads(again.stdout)
    assert (told["version"], told["experts"], told["layers"]) == (1, 3, 2)
    assert told["size"] == 4 * told["elements"]

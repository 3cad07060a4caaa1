"""Models from elsewhere: the same bits, or for fairseq the same function."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import Repo
from fairseq_decoder import Decoder, make, namespace, save
from safetensors.torch import load_file

from git_theta_btm.btm.arguments import arguments
from git_theta_btm.btm.cli.importing import import_
from git_theta_btm.btm.experts import checkpoints
from git_theta_btm.btm.fairseq import Options, convert
from git_theta_btm.btm.importing import huggingface
from git_theta_btm.btm.models import ModelAt, create
from git_theta_btm.btm.places import MODEL, PATTERNS, WEIGHTS
from git_theta_btm.btm.settings import load, write
from git_theta_btm.errors import FormatError, ThetaError
from git_theta_btm.git import Git
from git_theta_btm.repository import Repository
from git_theta_btm.source import BytesSource, FileSource

TOKENS = torch.tensor([[2, 5, 9, 4, 4, 30, 17, 39], [2, 8, 8, 3, 21, 22, 23, 0]])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture
def experts(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository of experts without a seed."""
    repo.git("theta", "track", *PATTERNS)
    write(str(repo.path), {"model": "tiny-gpt2", "domains": ["legal"]})
    repo.commit("settings")
    monkeypatch.chdir(repo.path)
    return repo


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS).logits if hasattr(model, "config") else model(TOKENS)
        return found


def converted(path: Path, folder: Path, options: Options | None = None, dictionary: str | None = None) -> Any:
    from transformers import AutoModelForCausalLM

    folder.mkdir()
    convert(str(path), str(folder), options or Options(), dictionary)
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not told["unexpected_keys"]
    assert not told["missing_keys"]
    return model.eval()


# -- fairseq -----------------------------------------------------------------------------------------------------------

KINDS = {
    "as OPT was trained": {},
    "gelu": {"activation_fn": "gelu"},
    "norms after": {"decoder_normalize_before": False},
    "scaled": {"no_scale_embedding": False},
    "its own head": {"share_decoder_input_output_embed": False},
    "scaled, its own head": {"no_scale_embedding": False, "share_decoder_input_output_embed": False},
    "sinusoidal": {"decoder_learned_pos": False, "activation_fn": "gelu"},
    "sinusoidal, scaled": {"decoder_learned_pos": False, "no_scale_embedding": False},
    "sinusoidal, its own head": {"decoder_learned_pos": False, "share_decoder_input_output_embed": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_function(tmp_path: Path, kind: str) -> None:
    args = namespace(**KINDS[kind])
    decoder = make(args)
    save(decoder, tmp_path / "model.pt")
    model = converted(tmp_path / "model.pt", tmp_path / "hf")
    assert model.config.model_type == ("opt" if args.decoder_learned_pos else "xglm")
    expected = logits(decoder)
    assert (logits(model) - expected).abs().max() < 1e-5 * max(1, float(expected.abs().max()))


def test_projections_in_one_table(tmp_path: Path) -> None:
    decoder = make(namespace())
    save(decoder, tmp_path / "model.pt", joined=True)
    assert torch.allclose(logits(converted(tmp_path / "model.pt", tmp_path / "hf")), logits(decoder), atol=1e-5)


def test_half_precision_stays(tmp_path: Path) -> None:
    decoder = make(namespace()).half()
    save(decoder, tmp_path / "model.pt")
    (tmp_path / "hf").mkdir()
    convert(str(tmp_path / "model.pt"), str(tmp_path / "hf"), Options())
    found = load_file(tmp_path / "hf/model.safetensors")
    assert torch.equal(found["model.decoder.embed_tokens.weight"], decoder.embed_tokens.weight)
    assert json.loads((tmp_path / "hf/config.json").read_text())["dtype"] == "float16"


def test_a_file_that_does_not_say(tmp_path: Path) -> None:
    decoder = make(namespace())
    save(decoder, tmp_path / "model.pt", args=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ThetaError, match="--heads"):
        convert(str(tmp_path / "model.pt"), str(tmp_path / "empty"), Options())
    model = converted(tmp_path / "model.pt", tmp_path / "hf", Options(heads=4, scale=False, before=True))
    assert torch.allclose(logits(model), logits(decoder), atol=1e-5)


def test_newer_files_have_a_configuration(tmp_path: Path) -> None:
    decoder = make(namespace())
    save(decoder, tmp_path / "model.pt", args=None, cfg={"model": decoder.args, "task": {"data": "x"}})
    assert torch.allclose(logits(converted(tmp_path / "model.pt", tmp_path / "hf")), logits(decoder), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder_learned_pos": False, "decoder_normalize_before": False}, "sinusoidal"),
        ({"activation_fn": "tanh", "decoder_attention_heads": 3}, "heads"),
    ],
)
def test_what_no_model_here_computes(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    args = namespace(**changes)
    decoder = make(namespace(**changes | {"decoder_attention_heads": 4}))
    save(decoder, tmp_path / "model.pt", args=args)
    with pytest.raises(ThetaError, match=words):
        convert(str(tmp_path / "model.pt"), str(tmp_path), Options())


def test_parameters_that_have_no_place(tmp_path: Path) -> None:
    decoder = make(namespace())
    model = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    for more in ({"decoder.layernorm_embedding.weight": torch.ones(16)}, {}):
        broken = {name: value for name, value in (model | more).items() if more or "0.fc2.bias" not in name}
        save(decoder, tmp_path / "model.pt", model=broken)
        with pytest.raises(ThetaError, match="no place" if more else "is missing"):
            convert(str(tmp_path / "model.pt"), str(tmp_path), Options())
    torch.save({"weights": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(ThetaError, match="no language model of fairseq"):
        convert(str(tmp_path / "other.pt"), str(tmp_path), Options())


@pytest.mark.parametrize("new", [True, False])
def test_arguments_are_read_and_not_unpickled(tmp_path: Path, *, new: bool) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    args = Namespace(heads=4, lr=[0.1], name="x", flag=True, nothing=None, trap=Trap(), long="y" * 5000)
    torch.save({"args": args}, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    with open(tmp_path / "m.pt", "rb") as file:
        found = arguments(FileSource(file.fileno()))
    assert found == {"heads": 4, "name": "x", "flag": True, "nothing": None}
    assert not (tmp_path / "sprung").exists()
    for data in (b"", b"PK\x03\x04", b"\x80\x02" * 40):
        with pytest.raises(FormatError):
            arguments(BytesSource(data))


def test_a_dictionary_becomes_the_tokenizer(experts: Repo, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save(make(namespace()), tmp_path / "model.pt")
    symbols = [f"w{number}" for number in range(30)]
    (tmp_path / "dict.txt").write_text("".join(f"{symbol} {90 - n}\n" for n, symbol in enumerate(symbols)))
    words = ["fairseq", str(tmp_path / "model.pt"), "--dict", str(tmp_path / "dict.txt")]
    run = CliRunner().invoke(import_, words)
    assert run.exit_code == 0, run.output
    tokenizer = AutoTokenizer.from_pretrained(experts.path / MODEL)
    assert tokenizer("w0 w7 what", add_special_tokens=False)["input_ids"] == [4, 11, 3]
    assert tokenizer.eos_token_id == 2
    assert load(str(experts.path)).text.tokenizer == MODEL
    assert torch.allclose(logits(ModelAt(Repository(), "HEAD").model()), logits(make(namespace())), atol=1e-5)


@pytest.mark.parametrize("text", ["w0", "w0 x\n", "w0 1\nw0 1\n", "".join(f"w{n} 1\n" for n in range(50))])
def test_dictionaries_that_are_none(tmp_path: Path, text: str) -> None:
    save(make(namespace()), tmp_path / "model.pt")
    (tmp_path / "dict.txt").write_text(text)
    with pytest.raises(ThetaError, match="dictionary"):
        convert(str(tmp_path / "model.pt"), str(tmp_path), Options(), str(tmp_path / "dict.txt"))


# -- Hugging Face ------------------------------------------------------------------------------------------------------


def tiny() -> Any:
    return create("tiny-gpt2", 40, 32, seed=1)


def folder(path: Path, **options: Any) -> Any:
    model = tiny()
    model.save_pretrained(path, **options)
    (path / "tokenizer_config.json").write_text("{}")
    (path / "modeling.py").write_text("raise SystemExit")
    return model.eval()


@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_becomes_the_seed(experts: Repo, tmp_path: Path, *, shards: bool) -> None:
    model = folder(tmp_path / "gpt", **({"max_shard_size": "100KB"} if shards else {}))
    commit = huggingface(Repository(), str(tmp_path / "gpt"))
    assert experts.git("rev-parse", "HEAD") == commit
    assert experts.status() == ""
    ((at, found), *_) = checkpoints(Git(), "HEAD")
    assert (at, found.domain, found.step, found.tokens) == (commit, "", 0, 0)
    assert len(list((tmp_path / "gpt").glob("*.safetensors"))) == 1 or shards
    if not shards:
        assert (experts.path / WEIGHTS).read_bytes() == (tmp_path / "gpt/model.safetensors").read_bytes()
    assert torch.equal(logits(ModelAt(Repository(), commit).model()), logits(model))
    names = experts.git("ls-files", MODEL).split()
    assert {f"{MODEL}/config.json", WEIGHTS, f"{MODEL}/tokenizer_config.json"} <= set(names)
    assert not [name for name in names if name.endswith((".py", ".index.json"))]
    with pytest.raises(ThetaError, match="exists already"):
        huggingface(Repository(), str(tmp_path / "gpt"))


def test_pickled_weights_are_converted(experts: Repo, tmp_path: Path) -> None:
    model = folder(tmp_path / "gpt")
    os.unlink(tmp_path / "gpt/model.safetensors")
    state = {
        name: value.t().contiguous().t() if value.ndim == 2 else value for name, value in model.state_dict().items()
    }
    torch.save(state, tmp_path / "gpt/pytorch_model.bin")
    assert torch.equal(
        logits(ModelAt(Repository(), huggingface(Repository(), str(tmp_path / "gpt"))).model()), logits(model)
    )


def test_folders_that_are_no_model(experts: Repo, tmp_path: Path) -> None:
    head = experts.git("rev-parse", "HEAD")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ThetaError, match=r"config\.json"):
        huggingface(Repository(), str(tmp_path / "empty"))
    (tmp_path / "empty/config.json").write_text("{}")
    with pytest.raises(ThetaError, match=r"pytorch_model\.bin"):
        huggingface(Repository(), str(tmp_path / "empty"))
    experts.git("config", "--unset", "filter.theta.clean")
    with pytest.raises(ThetaError, match="git theta install"):
        huggingface(Repository(), str(tmp_path / "empty"))
    assert experts.git("rev-parse", "HEAD") == head
    assert experts.status() == ""


def test_the_reference_is_causal() -> None:
    """What comes later changes nothing before it, in the decoder that all are compared with."""
    decoder: Decoder = make(namespace())
    assert torch.allclose(logits(decoder)[:, :4], decoder(TOKENS[:, :4]), atol=1e-6)

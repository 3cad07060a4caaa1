"""Adapters that PEFT trained, applied by ``git theta add``: the weights are PEFT's, the commit costs the factors."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Repo

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
safetensors_torch = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
MODEL = "model.safetensors"


def gpt2() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=128, vocab_size=200, n_positions=32)
    config.bos_token_id = config.eos_token_id = 0
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=128,
        intermediate_size=256,
        vocab_size=200,
    )
    return transformers.LlamaForCausalLM(config)


def train(model: Any, config: Any, folder: Path) -> dict[str, Any]:
    """Train an adapter for a few steps, save it to ``folder``, and return PEFT's merged tensors."""
    torch.manual_seed(1)
    adapted = peft.get_peft_model(model, config)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.02)
    ids = torch.randint(0, 200, (4, 16))
    for _ in range(3):
        adapted(input_ids=ids, labels=ids).loss.float().backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(folder)
    return dict(adapted.merge_and_unload().state_dict())


def commit_model(repo: Repo, model: Any) -> None:
    model.save_pretrained(repo.path)
    (repo.path / ".gitignore").write_text("*.json\n")
    repo.commit("base")


def load(repo: Repo) -> dict[str, Any]:
    tensors: dict[str, Any] = safetensors_torch.load_file(repo.path / MODEL)
    return tensors


def changed_lines(repo: Repo, *range_: str) -> set[str]:
    """The parameters whose lines ``git diff`` shows as new."""
    lines = repo.git("diff", *range_, "--unified=0", "--", MODEL).splitlines()
    return {line.split()[1] for line in lines if line.startswith("+param ")}


def factor_bytes(folder: Path) -> int:
    tensors = safetensors_torch.load_file(folder / "adapter_model.safetensors")
    return sum(t.numel() * t.element_size() for name, t in tensors.items() if "lora_" in name or "ia3_" in name)


def compare(before: dict[str, Any], after: dict[str, Any], merged: dict[str, Any], ulp: float) -> None:
    """Every tensor is PEFT's to within rounding: PEFT computes in the weight's own type, and rounds several times."""
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        wanted = merged[name]
        assert tensor.dtype == before[name].dtype
        scale = wanted.float().abs().max().item() + before[name].float().abs().max().item()
        assert (tensor.float() - wanted.float()).abs().max().item() <= ulp * scale, name


LORA: dict[str, Any] = {
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_fc"], "lora_alpha": 16}),
    "saved": (gpt2, {"target_modules": ["c_attn"], "modules_to_save": ["ln_f"], "bias": "lora_only"}),
    "llama": (llama, {"target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"], "lora_alpha": 12}),
}


@pytest.mark.parametrize("case", LORA)
def test_lora(repo: Repo, tmp_path: Path, case: str) -> None:
    make, options = LORA[case]
    model = make()
    commit_model(repo, model)
    before, sha, base = load(repo), repo.sha(MODEL), repo.manifest(MODEL).digest
    folder = tmp_path / "adapter"
    merged = train(model, peft.LoraConfig(r=8, **options), folder)
    stored = set(repo.objects())

    report = json.loads(repo.git("theta", "add", MODEL, "--update", "low-rank", "--from", str(folder), "--json"))
    (item,) = report["files"]
    after, new = load(repo), repo.sha(MODEL)
    compare(before, after, merged, 1e-6)
    assert item["base"] == base and item["digest"] == repo.manifest(MODEL).digest
    different = {name for name in after if not torch.equal(after[name], before[name])}
    assert different == set(item["parameters"]) == changed_lines(repo, "--cached") and different
    assert repo.status() == f"M  {MODEL}"
    large = {name for name in different if after[name].dim() == 2}
    lines = {line.rest[0] for line in repo.manifest(MODEL).objects if line.kind == "low_rank"}
    assert lines == {entry.digest for entry in repo.manifest(MODEL).entries if entry.name in large}

    new_bytes = sum(size for oid, size in repo.objects().items() if oid not in stored)
    rest = sum(t.numel() * 4 for name, t in after.items() if name in different - large)
    assert new_bytes <= 2 * (factor_bytes(folder) + rest)

    repo.git("commit", "--quiet", "--message", "adapted")
    for file in repo.theta.glob("catalogue*"):
        file.unlink()
    repo.git("checkout", "--quiet", "--detach", "HEAD~")
    assert repo.sha(MODEL) == sha
    repo.git("checkout", "--quiet", "main")
    assert repo.sha(MODEL) == new and repo.status() == ""
    assert repo.run("theta", "fsck").returncode == 0


def test_ia3(repo: Repo, tmp_path: Path) -> None:
    """What a layer's output is multiplied by goes into its weight and into its bias."""
    model = gpt2()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    commit_model(repo, model)
    before = load(repo)
    config = peft.IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"])
    merged = train(model, config, tmp_path / "adapter")
    stored = set(repo.objects())
    repo.git("theta", "add", MODEL, "--update", "ia3", "--from", str(tmp_path / "adapter"))
    after = load(repo)
    compare(before, after, merged, 1e-6)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == changed_lines(repo, "--cached")
    ends = {name.split(".", 3)[3] for name in changed}
    assert ends == {"attn.c_attn.weight", "attn.c_attn.bias", "mlp.c_proj.weight"}
    assert {line.kind for line in repo.manifest(MODEL).objects} >= {"ia3"}
    assert sum(size for oid, size in repo.objects().items() if oid not in stored) < 20_000


def test_a_model_in_shards_without_its_head(repo: Repo, tmp_path: Path) -> None:
    """The base is saved without the prefix that the adapter's names have, and in several files."""
    model = gpt2()
    model.transformer.save_pretrained(repo.path, max_shard_size="300KB")
    (repo.path / ".gitignore").write_text("*.json\n")
    repo.commit("base")
    shards = sorted(file.name for file in repo.path.glob("*.safetensors"))
    assert len(shards) > 2
    merged = train(model, peft.LoraConfig(r=8, target_modules=["c_attn", "c_fc"]), tmp_path / "adapter")
    adapter = str(tmp_path / "adapter")
    refused = repo.run("theta", "add", shards[1], "--update", "low-rank", "--from", adapter, check=False)
    assert refused.returncode == 128 and b"has no parameter transformer.h." in refused.stderr
    assert repo.status() == ""
    repo.git("theta", "add", *shards, "--update", "low-rank", "--from", adapter)
    tensors = {name: t for shard in shards for name, t in safetensors_torch.load_file(repo.path / shard).items()}
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, merged[f"transformer.{name}"], atol=1e-6)


def test_a_torch_file(repo: Repo, tmp_path: Path) -> None:
    """Tied weights change together, and torch accepts the archive's checksums."""
    model = gpt2()
    torch.save(model.state_dict(), repo.path / "model.pt")
    repo.commit("base")
    merged = train(model, peft.LoraConfig(r=8, target_modules=["c_attn", "wte"]), tmp_path / "adapter")
    repo.git("theta", "add", "model.pt", "--update", "low-rank", "--from", str(tmp_path / "adapter"))
    loaded = torch.load(repo.path / "model.pt", weights_only=True)
    assert loaded["lm_head.weight"].data_ptr() == loaded["transformer.wte.weight"].data_ptr()
    for name, tensor in loaded.items():
        assert torch.allclose(tensor, merged[name], atol=1e-6), name
    assert zipfile.ZipFile(repo.path / "model.pt").testzip() is None

"""The callback, in a trainer that knows nothing of this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Repo

from git_theta_btm.errors import ThetaError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Numbers(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = torch.arange(index, index + 8) % 50
        return {"input_ids": ids, "labels": ids}


def network() -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config)


def train(folder: Path, callback: Any, steps: int = 4, model: Any = None) -> Any:
    model = model or network()
    options = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, save_steps=2, logging_steps=1, use_cpu=True, report_to=[],
        per_device_train_batch_size=4, disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=options, train_dataset=Numbers(), callbacks=[callback])
    trainer.train()
    return model


def test_each_save_is_a_commit(repo: Repo, tmp_path: Path) -> None:
    from git_theta_btm.btm.experts import experts
    from git_theta_btm.btm.models import ModelAt
    from git_theta_btm.btm.training.callback import ThetaCallback
    from git_theta_btm.repository import Repository

    repo.write("mine.txt", b"not committed")
    before = repo.status()
    callback = ThetaCallback("legal", message="{domain} at {step}", domain="legal", repository=str(repo.path))
    model = train(tmp_path / "out", callback)
    assert repo.git("log", "--format=%s", "main..legal").split("\n") == ["legal at 4", "legal at 2"]
    assert callback.last == repo.git("rev-parse", "legal")
    assert repo.status() == before
    repository = Repository(str(repo.path))
    (found,) = experts(repository.git)
    assert (found.checkpoint.domain, found.checkpoint.step) == ("legal", 4)
    state = ModelAt(repository, "legal").state()
    assert state
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    files = repo.git("ls-tree", "--name-only", "legal", "training/").split("\n")
    assert "training/optimizer.pt" in files and "training/training_args.bin" not in files


def test_the_state_of_the_training_can_be_left_out(repo: Repo, tmp_path: Path) -> None:
    from git_theta_btm.btm.training.callback import ThetaCallback

    train(tmp_path / "run-1", ThetaCallback(path="net", optimizer=False, repository=str(repo.path)), 2)
    files = repo.git("diff", "--name-only", "main", "run-1").split("\n")
    assert {name for name in files if name != ".gitattributes"} == {
        "net/config.json", "net/generation_config.json", "net/model.safetensors"
    }  # fmt: skip


def test_a_branch_that_is_checked_out(repo: Repo, tmp_path: Path) -> None:
    from git_theta_btm.btm.training.callback import ThetaCallback

    with pytest.raises(ThetaError, match="main is checked out"):
        train(tmp_path / "out", ThetaCallback("main", repository=str(repo.path)))
    with pytest.raises(ThetaError, match="no name for a branch"):
        train(tmp_path / "out", ThetaCallback("HEAD", repository=str(repo.path)))


@pytest.mark.parametrize("path", ["model", "net"])
def test_an_adapter_is_bound_to_the_model_of_its_branch(repo: Repo, tmp_path: Path, path: str) -> None:
    from git_theta_btm.btm.models import ModelAt
    from git_theta_btm.btm.training.callback import ThetaCallback
    from git_theta_btm.repository import Repository

    peft = pytest.importorskip("peft")
    network().save_pretrained(repo.path / path)
    repo.commit("seed")
    base = str(repo.manifest(f"{path}/model.safetensors", "HEAD").digest)
    model = peft.get_peft_model(network(), peft.LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True))
    callback = ThetaCallback("legal", path, domain="legal", optimizer=False, repository=str(repo.path))
    train(tmp_path / "out", callback, model=model)
    assert repo.git("rev-parse", f"legal:{path}") == repo.git("rev-parse", f"main:{path}")  # the model is still there
    config = json.loads(repo.git("show", "legal:adapter/adapter_config.json"))
    assert config["theta_base"] == base and config["base_model_name_or_path"] is None
    assert "theta_base" not in json.loads((tmp_path / "out/checkpoint-4/adapter_config.json").read_text())
    if path == "model":
        found = ModelAt(Repository(str(repo.path)), "legal")
        assert found.adapter and found.digest != ModelAt(Repository(str(repo.path)), "main").digest
        wanted = model.merge_and_unload().state_dict()
        assert all(torch.allclose(value, wanted[name], atol=1e-6) for name, value in found.state().items())


def test_an_adapter_without_a_model_keeps_the_name_of_its_own(repo: Repo, tmp_path: Path) -> None:
    from git_theta_btm.btm.training.callback import ThetaCallback

    peft = pytest.importorskip("peft")
    options = peft.LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True, base_model_name_or_path="some/model")
    callback = ThetaCallback("legal", optimizer=False, repository=str(repo.path))
    train(tmp_path / "out", callback, 2, peft.get_peft_model(network(), options))
    config = json.loads(repo.git("show", "legal:adapter/adapter_config.json"))
    assert "theta_base" not in config and repo.git("ls-tree", "legal", "model") == ""

"""Experts that are adapters: their model with the adapter in it, which is bit for bit what applying it gives."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Repo
from forest import BLOCK, TEXT, forest, opened, planted  # noqa: F401
from safetensors.numpy import save_file

from git_theta_btm.btm.cli.average import average
from git_theta_btm.btm.cli.compare import compare
from git_theta_btm.btm.cli.evaluate import eval as evaluate
from git_theta_btm.btm.cli.exporting import export
from git_theta_btm.btm.data.tokens import load as tokens
from git_theta_btm.btm.ensembling.ensembles import Ensemble, members
from git_theta_btm.btm.ensembling.mixing import Job, over
from git_theta_btm.btm.ensembling.prior import Estimation, measure
from git_theta_btm.btm.evaluating.losses import log_probs
from git_theta_btm.btm.evaluating.perplexity import score
from git_theta_btm.btm.experts import Checkpoint, expert
from git_theta_btm.btm.merging import Contest
from git_theta_btm.btm.models import ModelAt
from git_theta_btm.btm.settings import load
from git_theta_btm.btm.training.branching import from_mixture
from git_theta_btm.btm.training.records import message
from git_theta_btm.errors import ThetaError

torch = pytest.importorskip("torch")
RANK = 24
CONFIG = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "fan_in_fan_out": True,
    "target_modules": ["c_attn", "c_fc", "c_proj"],
}  # fmt: skip


def factors(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What a training changed in the matrices, as near as a low rank comes to it."""
    found = {}
    for name in before:
        if not name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight")):
            continue
        left, values, right = np.linalg.svd((after[name] - before[name]).numpy().T, full_matrices=False)
        module = f"base_model.model.{name.removesuffix('.weight')}"
        found[f"{module}.lora_B.weight"] = np.ascontiguousarray(left[:, :RANK] * values[:RANK] / 2)
        found[f"{module}.lora_A.weight"] = np.ascontiguousarray(right[:RANK])
    return found


@pytest.fixture
def lora(forest: Repo) -> Repo:  # noqa: F811
    """A third expert, on the branch ``lora``: the seed, and an adapter that does most of what ``sums`` has learned."""
    seed, other = (ModelAt(opened(forest), name) for name in ("main", "sums"))
    forest.git("switch", "--quiet", "-c", "lora", "main")
    forest.git("theta", "track", "adapter/*.safetensors")
    (forest.path / "adapter").mkdir()
    save_file(factors(seed.state(), other.state()), forest.path / "adapter/adapter_model.safetensors")
    base = {"theta_base": str(forest.manifest("model/model.safetensors", "main").digest)}
    forest.write("adapter/adapter_config.json", json.dumps(CONFIG | base).encode())
    held = Checkpoint("sums", 80, 80, forest.git("rev-parse", "main"))
    forest.commit(message("lora", held, {"Reset": "none"}))
    forest.git("switch", "--quiet", "main")
    return forest


def merging(repo: Repo, *names: str) -> Contest:
    return Contest(opened(repo), load(str(repo.path)), names, "sums")


def test_the_adapter_counts_and_the_files_do_not_change(lora: Repo) -> None:
    found, seed = ModelAt(opened(lora), "lora"), ModelAt(opened(lora), "main")
    assert found.adapter and not seed.adapter
    assert found.digest != seed.digest
    before, plain, adapted = seed.state(), found.state(adapted=False), found.state()
    assert all(torch.equal(before[name], plain[name]) for name in before)
    assert {name for name in before if not torch.equal(before[name], adapted[name])} == {
        name for name in before if name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight"))
    }


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # PEFT does not know theta_base
def test_evaluation_prior_and_ensemble_are_those_of_peft(lora: Repo) -> None:
    peft = pytest.importorskip("peft")
    lora.git("switch", "--quiet", "lora")
    model = peft.PeftModel.from_pretrained(ModelAt(opened(lora), "main").model(), lora.path / "adapter").eval()
    wanted = score(log_probs(model, tokens(opened(lora), "sums", "test", TEXT).tokens, BLOCK)).perplexity
    done = CliRunner().invoke(evaluate, ["--matrix", "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["model"]: row["scores"] for row in json.loads(done.stdout)["models"]}
    assert rows["lora"]["sums"]["perplexity"] == pytest.approx(wanted, rel=1e-5)
    assert rows["seed"]["sums"]["perplexity"] != pytest.approx(wanted, rel=0.01)
    prior = measure(opened(lora), ["lora", "tales"], "sums", Estimation("test", samples=1000))
    assert prior.best == "lora"
    assert prior.perplexities[0] == pytest.approx(wanted, rel=1e-5)
    (row,) = over(opened(lora), Ensemble(members(opened(lora), ["lora"])), Job(("sums",)))
    assert row.score.perplexity == pytest.approx(wanted, rel=1e-5)


def test_a_merge_is_refused_until_the_commands_that_it_names_were_typed(lora: Repo) -> None:
    before = ModelAt(opened(lora), "lora").state()
    with pytest.raises(ThetaError, match="lora is an adapter that is not applied") as refused:
        merging(lora, "lora", "tales")
    with pytest.raises(ThetaError, match="lora is an adapter"):
        from_mixture(opened(lora), "new", {"lora": 0.5, "tales": 0.5})
    words = re.findall("'(git .*?)'", str(refused.value))
    assert [line.split()[1] for line in words] == ["switch", "theta", "commit"]
    for line in words[:-1]:
        lora.git(*shlex.split(line)[1:])
    lora.git("commit", "--quiet", "-m", "applied")
    found = ModelAt(opened(lora), "lora")
    after = found.state()
    assert found.adapter is None
    assert all(torch.equal(before[name], after[name]) for name in before)  # the same bits, applied or not
    contest = merging(lora, "lora", "tales")
    assert contest.experts[0].tip == lora.git("rev-parse", "lora") != contest.experts[0].commit
    assert {row.name for row in contest.table((0.5, 0.5), _average())} >= {"lora", "tales", "this merge"}


def _average() -> Any:
    from git_theta_btm.merging.recipe import Recipe

    return Recipe(weights=(0.5, 0.5))


def test_an_export_has_the_bits_of_an_adapter_that_was_applied(lora: Repo, tmp_path: Path) -> None:
    run = CliRunner().invoke(export, ["hf", "lora", str(tmp_path / "out")])
    assert run.exit_code == 0 and "the adapter in the weights" in run.stderr, run.output
    lora.git("switch", "--quiet", "lora")
    lora.git("theta", "add", "model/model.safetensors", "--update", "low-rank", "--from", "adapter/")
    expected = (lora.path / "model/model.safetensors").read_bytes()
    assert (tmp_path / "out/model.safetensors").read_bytes() == expected
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(("adapter", "tmp"))]
    lora.git("commit", "--quiet", "-m", "applied")
    run = CliRunner().invoke(export, ["hf", "lora", str(tmp_path / "again"), "--json"])
    assert not json.loads(run.stdout)["adapted"]
    assert (tmp_path / "again/model.safetensors").read_bytes() == expected


def test_a_comparison_tells_what_the_adapter_changed(lora: Repo) -> None:
    run = CliRunner().invoke(compare, ["main", "lora", "--by-parameter", "--json"])
    assert run.exit_code == 0, run.output
    rows = {row["name"]: row for row in json.loads(run.stdout)["rows"]}
    before, after = (ModelAt(opened(lora), name).state() for name in ("main", "lora"))
    assert {name for name, row in rows.items() if row["differing"]} == {
        name for name in before if not torch.equal(before[name], after[name])
    }
    for name, row in rows.items():
        assert row["l2"] == pytest.approx((after[name].double() - before[name].double()).norm().item(), rel=1e-9)
    run = CliRunner().invoke(compare, ["main", "lora:model/model.safetensors", "--json"])
    assert json.loads(run.stdout)["total"]["differing"] == 0  # a file that was named is that file


def test_a_comparison_of_a_broken_model_is_an_error(lora: Repo) -> None:
    weights = max(lora.manifest("model/model.safetensors", "lora").needs(), key=lambda blob: blob.size)
    path = Path(lora.store.path(weights.digest))
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    run = CliRunner().invoke(compare, ["main", "lora"])
    assert isinstance(run.exception, ThetaError) and "SHA-256" in str(run.exception)


def test_an_average_is_refused_as_a_merge_is(lora: Repo, tmp_path: Path) -> None:
    out = str(tmp_path / "out.safetensors")
    for words in (["lora", "tales"], ["tales", "sums", "--strategy", "task_arithmetic", "--base", "lora"]):
        run = CliRunner().invoke(average, [*words, "--out", out])
        assert isinstance(run.exception, ThetaError) and "lora is an adapter that is not applied" in str(run.exception)
    assert not os.path.exists(out)


def test_an_adapter_that_cannot_be_applied_is_named(lora: Repo) -> None:
    lora.git("switch", "--quiet", "lora")
    path = lora.path / "adapter/adapter_config.json"
    config = json.loads(path.read_text())
    for change, words in (
        ({"theta_base": None}, "theta_base is neither"),
        ({"theta_base": []}, "does not name the model that it is for"),
        ({"use_dora": True}, "use_dora are not supported"),
        ({"peft_type": "LOHA"}, "type 'LOHA'"),
        ({"r": 3}, "are of rank 24"),
    ):
        path.write_text(json.dumps(config | change))
        lora.commit("another")
        with pytest.raises(ThetaError, match=words):
            ModelAt(opened(lora), "lora").state()
    path.write_text(json.dumps(config | {"theta_base": "0" * 64}))
    lora.commit("of another model: it was applied, or something else was")
    assert ModelAt(opened(lora), "lora").adapter is None


def test_an_expert_of_a_name_below_another(lora: Repo) -> None:
    lora.git("branch", "--move", "lora", "more/lora")
    lora.git("branch", "sum", "main")
    assert expert(opened(lora).git, "more/lora").checkpoint.domain == "sums"
    for name in ("more", "sum", "main", "none", ""):
        with pytest.raises(ThetaError, match="no expert"):
            expert(opened(lora).git, name)

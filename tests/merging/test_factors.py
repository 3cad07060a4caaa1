"""Adapters in a merge: their factors are not averaged unless somebody says so, and none is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from branches import MODEL, Tensors, pack, seed, sprout, theta, trained
from conftest import Once, Repo
from safetensors.numpy import load, load_file

from git_theta_btm.adapters.adding import Request, add_update
from git_theta_btm.errors import MergeConflict, ThetaError
from git_theta_btm.merging.adapters import merge_adapters
from git_theta_btm.merging.launching import request, settle
from git_theta_btm.merging.previewing import Preview, preview
from git_theta_btm.merging.verifying import verify
from git_theta_btm.repository import Repository

CONFIG, FACTORS = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"
MODULE = "base_model.model.h.0"
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 6}


def factors(number: int, *, shared: bool = False) -> Tensors:
    """What a LoRA adapter of ``h.0.weight`` has; the right factor is the same for all if it is shared."""
    left, right = np.random.default_rng(number), np.random.default_rng(0 if shared else 100 + number)
    return {
        f"{MODULE}.lora_A.weight": right.standard_normal((2, 64), "f4"),
        f"{MODULE}.lora_B.weight": left.standard_normal((90, 2), "f4"),
    }


def model(tensors: Tensors) -> bytes:
    return pack({f"{name.removesuffix('.w')}.weight": value for name, value in tensors.items()})


def product(tensors: Tensors, scale: float) -> npt.NDArray[np.float64]:
    right, left = (tensors[f"{MODULE}.lora_{role}.weight"].astype("f8") for role in "AB")
    return scale * left @ right


@pytest.fixture
def adapters(repo: Repo, once: Once) -> Repo:
    """``legal`` and ``medical``: the seed with an adapter of its own; ``full``: all weights trained."""

    def build(repo: Repo) -> None:
        repo.write(MODEL, model(seed()))
        repo.commit("seed")
        config = json.dumps(SETTINGS | {"theta_base": str(repo.manifest(MODEL, "HEAD").digest)}).encode()
        files = {
            name: {CONFIG: config, FACTORS: pack(factors(number))} for number, name in enumerate(("legal", "code"))
        }
        frozen = {
            name: {CONFIG: config, FACTORS: pack(factors(number, shared=True))} for number, name in enumerate("ab")
        }
        sprout(repo, {**files, **frozen, "full": {MODEL: model(trained(3))}, "text": {"notes": b"text"}})

    return once(repo, build)


def planned(*names: str, **options: str) -> Preview:
    """What a merge would do. Raises what the merge would."""
    repository = Repository()
    return preview(repository, *settle(repository, request(repository, names, list(options.items()))))


def computed(found: Preview) -> dict[str, set[str]]:
    """The strategies of each file, and ``taken`` or ``equal``."""
    files = {file.path: file for file in found.files if not file.taken}
    return {
        path: {item.by if item.how == "computed" else item.how for item in files[path].parameters} for path in files
    }


def test_factors_are_not_averaged(adapters: Repo, tmp_path: Path) -> None:
    before = adapters.git("rev-parse", "HEAD")
    said = theta(adapters, "merge", "legal", "code", code=2).stderr
    assert f"{FACTORS}: factors of LoRA cannot be merged one by one" in said
    assert "'git theta merge-adapters legal:adapter code:adapter --out DIR'" in said
    assert (adapters.git("rev-parse", "HEAD"), adapters.status()) == (before, "")
    with pytest.raises(MergeConflict, match="factors of LoRA"):
        planned("legal", "code", strategy="linear")
    merge_adapters(["legal:adapter", "code:adapter"], str(tmp_path / "both"))
    made = load_file(tmp_path / "both/adapter_model.safetensors")
    expected = sum(product(factors(number), 3 / 2) for number in (0, 1))
    np.testing.assert_allclose(product(made, 1), expected, atol=1e-5)
    config = json.loads((tmp_path / "both/adapter_config.json").read_text())
    assert (config["r"], config["theta_base"]) == (4, [str(adapters.manifest(MODEL, "HEAD").digest)])


def test_a_rule_or_an_attribute_has_it_all_the_same(adapters: Repo) -> None:
    assert computed(planned("legal", "code", rule="*lora_* average")) == {FACTORS: {"average"}}
    assert computed(planned("legal", "code", rule="*lora_A* ours")) == {FACTORS: {"average", "taken"}}
    assert computed(planned("legal", "code", strategy="ours")) == {FACTORS: {"taken"}}
    assert computed(planned("a", "b")) == {FACTORS: {"average", "equal"}}  # exact: one factor is the same in both
    theta(adapters, "merge", "legal", "code", "--rule", "*lora_* average")
    mean = load((adapters.path / FACTORS).read_bytes())
    for name, value in mean.items():
        np.testing.assert_allclose(value, (factors(0)[name] + factors(1)[name]) / 2, atol=1e-7)
    assert not verify(Repository(), "HEAD").differences
    adapters.git("reset", "--quiet", "--hard", "main@{1}")
    adapters.write(".git/info/attributes", b"adapter_model.safetensors theta-merge=linear\n")
    assert computed(planned("legal", "code")) == {FACTORS: {"linear"}}


def test_factors_of_other_ranks_are_told_the_same(adapters: Repo) -> None:
    wide = {name: np.repeat(value, 2, 0 if "lora_A" in name else 1) for name, value in factors(2).items()}
    sprout(adapters, {"wide": {CONFIG: adapters.blob(CONFIG, "legal"), FACTORS: pack(wide)}})
    with pytest.raises(MergeConflict, match="'git theta merge-adapters legal:adapter wide:adapter --out DIR'"):
        planned("legal", "wide")
    (file,) = (file for file in planned("legal", "wide", rule="*lora_* average").files if file.path == FACTORS)
    assert "has the shapes [2, 64] and [4, 64]" in file.problem


def test_plain_git_has_a_conflict_that_can_be_resolved(adapters: Repo) -> None:
    adapters.git("switch", "--quiet", "legal")
    done = adapters.run("merge", "code", check=False)
    assert done.returncode == 1 and b"'git theta merge-adapters legal:adapter code:adapter --out DIR'" in done.stderr
    theta(adapters, "resolve", "--theirs")
    assert adapters.blob(FACTORS) == adapters.blob(FACTORS, "code")


def test_an_adapter_is_not_left_behind(adapters: Repo) -> None:
    done = adapters.run("merge", "-s", "theta", "--no-ff", "-m", "both", "full", "legal", check=False)
    said = f"legal has an adapter in adapter/ that is not applied to {MODEL}, which full changed".encode()
    assert done.returncode == 2 and said in done.stderr
    assert b"'git theta add model.safetensors --update low-rank --from adapter/'" in done.stderr
    assert {file.path: file.taken for file in planned("legal", "text").files} == {FACTORS: "legal"}
    for name in ("legal", "code"):
        adapters.git("switch", "--quiet", name)
        add_update(Repository(), [MODEL], Request("low-rank", "adapter"), lambda done, total: None)
        adapters.git("commit", "--quiet", "-m", "applied")
    assert computed(planned("full")) == {MODEL: {"average"}}
    assert computed(planned("legal"))[MODEL] == {"average", "equal"}  # the factors that were applied are history


def test_adapters_of_commits_that_are_none(adapters: Repo) -> None:
    sprout(adapters, {"ia3": {CONFIG: b'{"peft_type": "IA3"}'}, "bare": {CONFIG: b'{"peft_type": "LORA"}'}})
    for word, problem in (
        ("main:adapter", "main:adapter has no adapter_config.json"),
        ("nope:adapter", "nope:adapter has no adapter_config.json"),
        ("legal:", "legal: has no adapter_config.json"),
        ("ia3:adapter", "ia3:adapter is an adapter of type 'IA3', not LORA"),
        ("bare:adapter", "there is no file 'adapter/adapter_model.safetensors' in bare"),
    ):
        with pytest.raises(ThetaError, match=problem):
            merge_adapters([word], "out")

"""``git theta merge`` with real git: many experts become one model in one commit."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from branches import (
    MODEL,
    Tensors,
    branch,
    experts,
    mean,
    merged,
    message,
    pack,
    parents,
    same,
    seed,
    theta,
    trained,
    trio,
    trio_template,
)
from conftest import Repo


def tip(repo: Repo, name: str) -> str:
    return repo.git("rev-parse", name)


__all__ = ["trio", "trio_template"]


def of_names(*names: str) -> dict[str, Tensors]:
    """What the experts of these names are in the template: it has them in this order."""
    return {name: trained(("legal", "medical", "code").index(name) + 1) for name in names}


@pytest.mark.parametrize("count", [2, 3, 64])
def test_many_branches_in_one_commit(repo: Repo, count: int) -> None:
    names = [f"expert-{number}" for number in range(count)]
    states = experts(repo, *names)
    main = tip(repo, "main")
    said = theta(repo, "merge", *names)
    assert "Merge made by the 'theta' strategy." in said.stdout
    assert parents(repo) == [main, *(tip(repo, name) for name in names)]
    assert same(merged(repo), mean(list(states.values())))
    assert repo.status() == ""
    assert message(repo).count("Theta-Expert:") == count
    assert all((repo.path / f"{name}.txt").exists() for name in names)
    theta(repo, "verify")


def test_one_expert_gets_a_commit_or_moves_the_branch(trio: Repo) -> None:
    repo, states = trio, of_names("legal")
    main = tip(repo, "main")
    theta(repo, "merge", "legal")
    assert parents(repo) == [main, tip(repo, "legal")]
    assert same(merged(repo), states["legal"])
    repo.git("reset", "--quiet", "--hard", main)
    theta(repo, "merge", "--ff", "legal")
    assert tip(repo, "HEAD") == tip(repo, "legal")


def test_one_after_the_other_is_the_mean_of_all(repo: Repo) -> None:
    states = experts(repo, "a", "b", "c")
    repo.git("checkout", "--quiet", "a")
    theta(repo, "merge", "b")
    theta(repo, "merge", "c")
    assert "mass=2.0" in message(repo)
    exact = mean(list(states.values()))
    for name, value in merged(repo).items():  # the first merge is rounded to float32 before the second
        np.testing.assert_allclose(value, exact[name], rtol=3e-7, atol=1e-7)
    theta(repo, "verify")
    theta(repo, "verify", "HEAD^")


def test_weights_by_name(trio: Repo) -> None:
    repo, states = trio, of_names("legal", "medical")
    theta(repo, "merge", "medical", "legal", "--weights", "legal=3,medical=1")
    assert same(merged(repo), mean([states["legal"], states["medical"]], [3.0, 1.0]))
    assert "Theta-Expert: " + tip(repo, "legal") + " 3.0 legal" in message(repo)


def test_weights_keep_their_experts_whatever_git_puts_first(trio: Repo) -> None:
    repo, states = trio, of_names("legal", "medical")
    repo.git("checkout", "--quiet", "legal")
    assert "legal is HEAD" in theta(repo, "merge", "medical", "legal", "--weights", "3,1", code=129).stderr
    repo.git("checkout", "--quiet", "both")
    assert "legal is in both already" in theta(repo, "merge", "legal", "code", "--weights", "3,1", code=129).stderr
    repo.git("checkout", "--quiet", "legal")
    theta(repo, "merge", "legal", "medical", "--weights", "3,1")
    assert same(merged(repo), mean([states["legal"], states["medical"]], [3.0, 1.0]))


def test_a_recipe_names_all(trio: Repo, tmp_path: Path) -> None:
    repo, states = trio, of_names("legal", "medical")
    (repo.path / "sub").mkdir()
    (tmp_path / "merge.yaml").write_text(
        "strategy: task_arithmetic\noptions: {lambda: 0.5}\nexperts: {legal: 1, medical: 2}\nbase: main\n"
        "rules:\n  - {match: 'h.0.*', strategy: base}\n"
    )
    theta(repo, "merge", "--recipe", "../../merge.yaml", cwd="sub")
    start = seed()
    for name, value in merged(repo).items():
        move = 1.0 * (states["legal"][name] - start[name]) + 2.0 * (states["medical"][name] - start[name])
        expected = start[name] + (0.0 if name.startswith("h.0") else 0.5) * move
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    theta(repo, "verify")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nobody"], 128, "there is no commit 'nobody'"),
        (["legal", "medical", "--strategy", "magic"], 129, "there is no merge strategy 'magic'"),
        (["legal", "medical", "-o", "density=0.1"], 129, "average has no option 'density'"),
        (["legal", "medical", "-s", "ties", "-o", "density=7"], 129, "density cannot be 7: it is 0 to 1"),
        (["legal", "medical", "--weights", "legal=1,nobody=2"], 129, "'nobody' is not merged"),
        (["legal", "--recipe", "gone.yaml"], 129, "No such file"),
        (["legal", "-o", "density"], 129, "has to be KEY=VALUE"),
        ([], 129, "which commits?"),
    ],
)
def test_what_makes_no_sense_changes_nothing(trio: Repo, words: list[str], code: int, said: str) -> None:
    repo = trio
    before = repo.git("for-each-ref"), repo.sha(MODEL), repo.status()
    error = theta(repo, "merge", *words, code=code).stderr
    assert said in error
    assert len(error.splitlines()) == 1
    assert (repo.git("for-each-ref"), repo.sha(MODEL), repo.status()) == before


def test_models_that_cannot_be_merged_change_nothing(trio: Repo) -> None:
    repo = trio
    branch(repo, "wide", {MODEL: pack(trained(2, 91))})
    before = repo.git("for-each-ref"), repo.sha(MODEL)
    said = theta(repo, "merge", "legal", "wide", code=2).stderr
    assert "has the shapes [90, 64] and [91, 64]" in said
    assert (repo.git("for-each-ref"), repo.sha(MODEL), repo.status()) == (*before, "")


# -- what else is in the tree ------------------------------------------------------------------------------------------


def test_a_text_conflict_is_an_ordinary_one(trio: Repo) -> None:
    repo, states = trio, of_names("legal", "medical")
    for name in states:
        repo.git("checkout", "--quiet", name)
        repo.write("README", f"hello from {name}\n".encode())
        repo.commit(f"greet from {name}")
    repo.git("checkout", "--quiet", "main")
    before = repo.sha(MODEL), tip(repo, "HEAD")
    theta(repo, "merge", "legal", "medical", code=1)
    assert same(merged(repo), mean(list(states.values())))
    assert "U" in repo.git("status", "--porcelain", "README")[:2] or repo.git("ls-files", "-u", "README")
    theta(repo, "merge", "--abort")
    assert (repo.sha(MODEL), tip(repo, "HEAD"), repo.status()) == (*before, "")

    theta(repo, "merge", "legal", "medical", code=1)
    repo.write("README", b"hello from both\n")
    repo.git("add", "README")
    theta(repo, "merge", "--continue")
    assert parents(repo) == [before[1], tip(repo, "legal"), tip(repo, "medical")]
    assert message(repo).count("Theta-Merge:") == 1
    theta(repo, "verify")


def test_dirty_files_are_kept(trio: Repo) -> None:
    repo = trio
    repo.write("README", b"in the middle of it\n")
    theta(repo, "merge", "legal", "medical")
    assert repo.status() == " M README"
    repo.git("reset", "--quiet", "--hard", "HEAD^")
    mine = repo.write(MODEL, pack(trained(9)))
    theta(repo, "merge", "legal", "medical", code=2)
    assert repo.sha(MODEL) == mine
    assert repo.status() == f" M {MODEL}"


def test_an_octopus_with_a_rename(trio: Repo) -> None:
    repo, states = trio, of_names("legal", "medical", "code")
    repo.git("checkout", "--quiet", "medical")
    repo.git("mv", MODEL, "renamed.safetensors")
    repo.commit("rename")
    repo.git("checkout", "--quiet", "main")
    theta(repo, "merge", "legal", "medical", "code", "-s", "task_arithmetic", "-o", "normalize=true")
    assert not (repo.path / MODEL).exists()
    for name, value in merged(repo, "renamed.safetensors").items():
        np.testing.assert_allclose(value, mean(list(states.values()))[name], rtol=1e-5, atol=1e-6)
    theta(repo, "verify")


def test_a_model_of_one_expert_alone(trio: Repo) -> None:
    repo = trio
    repo.git("checkout", "--quiet", "medical")
    only = repo.write("extra.safetensors", pack(trained(7)))
    repo.commit("another model")
    repo.git("checkout", "--quiet", "main")
    theta(repo, "merge", "legal", "medical")
    assert repo.sha("extra.safetensors") == only
    theta(repo, "verify")


# -- how it ends -------------------------------------------------------------------------------------------------------


def test_squash_and_no_commit(trio: Repo) -> None:
    repo, states = trio, of_names("legal", "medical")
    main = tip(repo, "main")
    theta(repo, "merge", "--squash", "legal", "medical")
    assert tip(repo, "HEAD") == main
    repo.git("commit", "--quiet", "--no-edit")
    assert parents(repo) == [main]
    assert message(repo).count("Theta-Merge:") == 1
    theta(repo, "verify")
    repo.git("reset", "--quiet", "--hard", main)

    theta(repo, "merge", "--no-commit", "legal", "medical")
    assert same(merged(repo), mean(list(states.values())))
    repo.git("commit", "--quiet", "--no-edit")
    assert parents(repo) == [main, tip(repo, "legal"), tip(repo, "medical")]
    assert message(repo).count("Theta-Merge:") == 1
    theta(repo, "verify")


@pytest.mark.parametrize("hook", ["#!/usr/bin/env python3\n", '#!/bin/sh\necho from a hook >>"$1"\n', ""])
def test_the_record_is_there_whatever_the_hooks(trio: Repo, tmp_path: Path, hook: str) -> None:
    repo = trio
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    if hook:
        (hooks / "prepare-commit-msg").write_text(hook)
        (hooks / "prepare-commit-msg").chmod(0o755)
    repo.git("config", "core.hooksPath", str(hooks))
    main = tip(repo, "main")
    theta(repo, "merge", "legal", "medical", "-m", "both of them")
    assert message(repo).startswith("both of them")
    assert message(repo).count("Theta-Merge:") == 1
    assert parents(repo) == [main, tip(repo, "legal"), tip(repo, "medical")]
    assert repo.status() == ""
    theta(repo, "verify")
    repo.git("reset", "--quiet", "--hard", main)
    theta(repo, "merge", "--no-commit", "legal", "medical")
    repo.git("commit", "--quiet", "--no-edit")
    assert message(repo).count("Theta-Merge:") == 1


def test_in_a_linked_worktree(trio: Repo, tmp_path: Path) -> None:
    repo, states = trio, of_names("legal", "medical")
    repo.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"), "main")
    linked = Repo(tmp_path / "linked")
    theta(linked, "merge", "legal", "medical")
    assert same(merged(linked), mean(list(states.values())))
    assert linked.status() == repo.status() == ""
    theta(linked, "verify")


def test_a_bare_repository_verifies(trio: Repo, tmp_path: Path) -> None:
    repo = trio
    repo.git("checkout", "--quiet", "code")
    repo.git("mv", MODEL, "renamed.safetensors")
    repo.commit("rename")
    repo.git("checkout", "--quiet", "main")
    theta(repo, "merge", "legal", "medical", "code")
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    shutil.copytree(repo.theta, tmp_path / "bare.git" / "theta")
    bare = Repo(tmp_path / "bare.git")
    assert "all of it agrees" in theta(bare, "verify", "main").stderr
    assert "bare repository" in theta(bare, "merge", "legal", code=128).stderr


# -- formats -----------------------------------------------------------------------------------------------------------


def torch_file(tensors: Tensors) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": {name: torch.from_numpy(value) for name, value in tensors.items()}, "step": 7}, buffer)
    return buffer.getvalue()


def test_a_torch_checkpoint(repo: Repo) -> None:
    states = experts(repo, "legal", "medical", path="model.pt", make=torch_file)
    theta(repo, "merge", "legal", "medical")
    found = torch.load(repo.path / "model.pt", weights_only=True)
    assert found["step"] == 7
    assert same({name: value.numpy() for name, value in found["model"].items()}, mean(list(states.values())))
    theta(repo, "verify")


def test_a_sharded_folder(repo: Repo) -> None:
    folder = "große modelle/shards"
    states: dict[str, list[Tensors]] = {}

    def shards(tensors: Tensors) -> dict[str, bytes]:
        parts = [{name: tensors[name]} for name in tensors]
        return {f"{folder}/model-{place}-of-3.safetensors": pack(part) for place, part in enumerate(parts, 1)}

    for path, data in shards(seed()).items():
        repo.write(path, data)
    repo.commit("seed")
    for number, name in enumerate(("legal", "medical"), 1):
        states[name] = [trained(number)]
        branch(repo, name, shards(trained(number)))
    theta(repo, "merge", "legal", "medical", cwd=folder)
    found: Tensors = {}
    for place in range(1, 4):
        found |= merged(repo, f"{folder}/model-{place}-of-3.safetensors")
    assert same(found, mean([states["legal"][0], states["medical"][0]]))
    assert "3 models, 3 parameters merged, all of it agrees" in theta(repo, "verify").stderr
    assert repo.status() == ""


def test_a_merged_transformers_model_generates(repo: Repo, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip

    def save(number: int) -> None:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
        torch.manual_seed(number)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value) * 0.01 * bool(number))
        model.save_pretrained(repo.path / "llm")

    save(0)
    repo.commit("seed")
    for number, name in enumerate(("legal", "medical"), 1):
        repo.git("checkout", "--quiet", "-b", name, "main")
        save(number)
        repo.commit(name)
    repo.git("checkout", "--quiet", "main")
    theta(repo, "merge", "legal", "medical", "-s", "ties", "-o", "density=0.5")
    model = transformers.AutoModelForCausalLM.from_pretrained(repo.path / "llm")
    made = model.generate(
        torch.tensor([[1, 2, 3]]), max_new_tokens=5, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert made.shape == (1, 8)
    theta(repo, "verify")


def test_plain_git_and_ours_make_the_same_commit(trio: Repo) -> None:
    repo = trio
    theta(repo, "merge", "legal", "medical", "--weights", "0.25,0.75")
    ours = repo.git("cat-file", "commit", "HEAD")
    repo.git("reset", "--quiet", "--hard", "HEAD^")
    done = subprocess.run(
        ["git", "merge", "--no-ff", "-s", "theta", "-X", "weights=0.25,0.75", "legal", "medical"],
        cwd=repo.path, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert repo.git("cat-file", "commit", "HEAD") == ours

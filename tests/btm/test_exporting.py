"""Folders for other programs: the commit's own bytes, and what they need to be loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import Repo
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.btm.cli.exporting import export as command
from git_theta_btm.btm.exporting import export
from git_theta_btm.btm.models import create
from git_theta_btm.btm.places import MODEL, PATTERNS, WEIGHTS
from git_theta_btm.btm.settings import write
from git_theta_btm.btm.vocabularies import of_bytes
from git_theta_btm.errors import ObjectError, ThetaError
from git_theta_btm.repository import Repository


def model(seed: int) -> Any:
    return create("tiny-gpt2", 258, 32, seed).eval()


@pytest.fixture
def experts(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A seed, and two models of one step on branches."""
    torch.set_num_threads(1)
    repo.git("theta", "track", *PATTERNS)
    write(str(repo.path), {"model": "tiny-gpt2"})
    model(0).save_pretrained(repo.path / MODEL)
    repo.commit("seed")
    for seed, branch in enumerate(("legal", "code"), 1):
        repo.git("switch", "--quiet", "-c", branch, "main")
        model(seed).save_pretrained(repo.path / MODEL)
        repo.commit(branch)
    repo.git("switch", "--quiet", "main")
    monkeypatch.chdir(repo.path)
    return repo


def test_a_commit_as_transformers_loads_it(experts: Repo, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    experts.git("switch", "--quiet", "legal")
    expected = (experts.path / WEIGHTS).read_bytes()
    experts.git("switch", "--quiet", "main")
    made = export(Repository(), "legal", str(tmp_path / "out"))
    assert (tmp_path / "out/model.safetensors").read_bytes() == expected
    assert made.commit == experts.git("rev-parse", "legal")
    assert set(made.files) >= {"config.json", "model.safetensors", "tokenizer.json"}
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("naïve §", return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == list("naïve §".encode())
    with torch.no_grad():
        assert torch.equal(found(ids).logits, model(1)(ids).logits)
    assert experts.status() == ""


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_tokens_of_bytes_are_bytes(text: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(of_bytes()["tokenizer.json"])
    ids = tokenizer.encode(text).ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("a<|endoftext|><|padding|>").ids == [97, 256, 257]


def test_a_tokenizer_that_is_there_stays(experts: Repo, tmp_path: Path) -> None:
    (experts.path / MODEL / "tokenizer.json").write_text('{"own": 1}')
    (experts.path / MODEL / "README.md").write_text("mine")
    (experts.path / MODEL / "more").mkdir()
    (experts.path / MODEL / "more/notes.txt").write_text("deep")
    experts.commit("files")
    export(Repository(), "HEAD", str(tmp_path / "out"))
    assert (tmp_path / "out/tokenizer.json").read_text() == '{"own": 1}'
    assert (tmp_path / "out/README.md").read_text() == "mine"
    assert (tmp_path / "out/more/notes.txt").read_text() == "deep"
    assert not (tmp_path / "out/tokenizer_config.json").exists()


def test_a_merge_has_its_card(experts: Repo, tmp_path: Path) -> None:
    experts.git("theta", "merge", "legal", "code", "--weights", "1,3", "-m", "both")
    run = CliRunner().invoke(command, ["hf", str(tmp_path / "out"), "--json"])
    assert run.exit_code == 0, run.output
    assert "README.md" in json.loads(run.stdout)["files"]
    card = (tmp_path / "out/README.md").read_text()
    assert experts.git("rev-parse", "legal") in card
    assert not os.path.exists(tmp_path / "out/card.json")


def test_nothing_or_all(experts: Repo, tmp_path: Path) -> None:
    weights = max(experts.manifest(WEIGHTS, "code").needs(), key=lambda blob: blob.size)
    legal = {blob.digest for blob in experts.manifest(WEIGHTS, "legal").needs()}
    assert weights.digest not in legal
    os.unlink(experts.store.path(weights.digest))
    with pytest.raises(ObjectError):
        export(Repository(), "code", str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["repo"]
    with pytest.raises(ThetaError, match="no commit"):
        export(Repository(), "nope", str(tmp_path / "out"))
    with pytest.raises(ThetaError, match="exists already"):
        export(Repository(), "legal", str(tmp_path / "repo"))
    experts.git("rm", "-rq", MODEL)
    experts.commit("none")
    with pytest.raises(ThetaError, match="has no model"):
        export(Repository(), "HEAD", str(tmp_path / "out"))
    assert CliRunner().invoke(command, ["hf"]).exit_code != 0

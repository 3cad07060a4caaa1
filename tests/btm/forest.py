"""A small forest: a repository with two domains of made-up text, a seed, and an expert for each domain."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Repo, install, surroundings

from git_theta_btm.btm.experts import Checkpoint
from git_theta_btm.btm.models import BYTES
from git_theta_btm.btm.settings import Text
from git_theta_btm.btm.settings import write as configure
from git_theta_btm.repository import Repository

BLOCK = 48
TEXT = Text("bytes", BLOCK)
DOMAINS = ("sums", "tales")
_WORDS = "the a old grey fox bear queen river walked slept sang under over tree hill then again softly"


def documents(domain: str, seed: int, count: int) -> list[str]:
    """Texts of a domain: sums of small numbers, or tales of few words."""
    chance = random.Random(f"{domain} {seed}")
    if domain == "tales":
        return [" ".join(chance.choices(_WORDS.split(), k=14)) + ".\n" for _ in range(count)]
    pairs = [[(chance.randrange(50), chance.randrange(50)) for _ in range(7)] for _ in range(count)]
    return ["".join(f"{one}+{other}={one + other};\n" for one, other in row) for row in pairs]


def stream(domain: str, seed: int, count: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The tokens of such texts, each with its end."""
    return np.array([token for text in documents(domain, seed, count) for token in (*text.encode(), 256)], np.uint16)


@contextmanager
def alone() -> Iterator[None]:
    """One thread, as tests share few processors."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def model(seed: int = 0) -> Any:
    """A model of one layer with random weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=BYTES, n_positions=64, n_layer=1, n_embd=32, n_head=2, bos_token_id=256, eos_token_id=256,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def train(found: Any, tokens: Any, steps: int, seed: int) -> None:
    """Fit a model to a stream, in place."""
    import torch

    chance = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(found.parameters(), lr=5e-3)
    for _ in range(steps):
        starts = chance.integers(0, len(tokens) - BLOCK, 16)
        ids = torch.tensor(np.stack([tokens[start : start + BLOCK] for start in starts]).astype(np.int64))
        found(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def save(repo: Repo, found: Any, message: str) -> str:
    """Commit a model."""
    found.save_pretrained(repo.path / "model")
    repo.git("add", "model")
    repo.git("commit", "--quiet", "--allow-empty", "-m", message)
    return repo.git("rev-parse", "HEAD")


def plant(path: Path) -> Repo:
    """The forest in a new repository: ``main`` has the seed, ``sums`` and ``tales`` two checkpoints each."""
    from copy import deepcopy

    repo = Repo(path)
    repo.path.mkdir()
    repo.git("init", "--quiet", "--initial-branch=main")
    install(repo)
    configure(str(path), {"domains": list(DOMAINS), "text": {"tokenizer": "bytes", "block": BLOCK}})
    for domain in DOMAINS:
        for number, (split, count) in enumerate((("train", 150), ("valid", 40), ("test", 40))):
            rows = [json.dumps({"text": text}) + "\n" for text in documents(domain, number, count)]
            repo.write(f"data/{domain}/{split}.jsonl", "".join(rows).encode())
    repo.commit("text")
    with alone():
        seed = model()
        train(seed, np.concatenate([stream(domain, 0, 150) for domain in DOMAINS]), 40, 0)
        root = save(repo, seed, "seed\n\n" + Checkpoint("", 40, 40 * 16 * BLOCK).trailers())
        for domain in DOMAINS:
            repo.git("checkout", "--quiet", "-b", domain, "main")
            expert = deepcopy(seed)
            for step in (60, 80):
                train(expert, stream(domain, 0, 150), 20, step)
                save(repo, expert, f"{domain}\n\n" + Checkpoint(domain, step, step * 16 * BLOCK, root).trailers())
        repo.git("checkout", "--quiet", "main")
    return repo


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forest, made once."""
    directory = tmp_path_factory.mktemp("forest")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(directory).items():
            patch.setenv(name, value)
        return plant(directory / "repo").path


@pytest.fixture
def forest(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """A copy of it, which the test runs in."""
    repo = Repo(Path(shutil.copytree(planted, tmp_path / "forest", symlinks=True)))
    monkeypatch.chdir(repo.path)
    with alone():
        yield repo


def opened(repo: Repo) -> Repository:
    """The repository as the package sees it."""
    return Repository(str(repo.path))

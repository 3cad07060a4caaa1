"""A grove: two domains of made-up text, a seed of four updates, and a branch for each of two experts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Repo, surroundings
from conftest import install as install_filters

from git_theta_btm.btm import settings as btm_settings
from git_theta_btm.btm.models import ModelAt
from git_theta_btm.btm.places import PATTERNS
from git_theta_btm.btm.training.branching import Point, branch
from git_theta_btm.btm.training.requests import Request, seed_stop
from git_theta_btm.btm.training.running import run
from git_theta_btm.repository import Repository
from git_theta_btm.setup.attributes import track

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
WARNINGS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

CONFIG = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 258, "n_positions": 64, "n_embd": 32,
    "n_layer": 2, "n_head": 2, "bos_token_id": 256, "eos_token_id": 256,
}  # fmt: skip
SETTINGS = """
version = 1
model = "init"
domains = ["code", "legal"]
[text]
block = 32
[training]
steps = 8
batch = 4
micro_batch = 2
save_every = 2
learning_rate = 0.01
warmup = 0.0
"""


def populate(repo: Repo) -> None:
    """Two domains, and a model of two layers with dropout, whose random numbers have to go on as well."""
    track(Repository(str(repo.path)), PATTERNS)
    texts = {"code": "def f(x):\n    return x + {}\n", "legal": "The party of the {} part shall not be liable.\n"}
    for domain, text in texts.items():
        for split, count in (("train", 60), ("valid", 6)):
            lines = "".join(json.dumps({"text": text.format(number)}) + "\n" for number in range(count))
            repo.write(f"data/{domain}/{split}.jsonl", lines.encode())
    repo.write("init/config.json", json.dumps(CONFIG).encode())
    repo.write("btm.toml", SETTINGS.encode())
    repo.commit("text")


def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that tests copy."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        torch.set_num_threads(1)
        repo = Repo(tmp_path_factory.mktemp("planted") / "repo")
        repo.path.mkdir()
        repo.git("init", "--quiet", "--initial-branch=main")
        install_filters(repo)
        populate(repo)
        run(seed_request(repo))
        for domain in ("code", "legal"):
            branch(Repository(str(repo.path)), domain, Point())
    return repo.path


def seed_request(repo: Repo, **changes: Any) -> Request:
    found = btm_settings.load(str(repo.path))
    request = Request(str(repo.path), "refs/heads/main", ("code", "legal"), seed_stop(found), found, balance="equal")
    return replace(request, **changes)


def request(repo: Repo, domain: str = "code", **changes: Any) -> Request:
    found = btm_settings.load(str(repo.path))
    made = Request(str(repo.path), f"refs/heads/{domain}", (domain,), found.training.steps, found)
    return replace(made, **changes)


def digest(repo: Repo, revision: str) -> str:
    return ModelAt(Repository(str(repo.path)), revision).digest


def entries(repo: Repo, revision: str) -> dict[str, str]:
    return {entry.name: str(entry.digest) for entry in repo.manifest("model/model.safetensors", revision).entries}


def in_a_child(action: Callable[[], object]) -> int:
    """Do something in a process of its own; the signal that ended it, or its exit code, negative."""
    child = os.fork()
    if not child:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)

"""Averages of plain checkpoint files, byte for byte where one model is all that counts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from git_theta_btm.btm.averaging import Order, average
from git_theta_btm.btm.cli.average import average as command
from git_theta_btm.btm.cli.compare import compare
from git_theta_btm.errors import MergeConflict, ThetaError, UsageError
from git_theta_btm.merging.reading import from_pairs

SHAPES = {"embed.weight": (7, 4), "layers.0.fc.weight": (4, 4), "layers.1.fc.weight": (4, 4), "layers.2.fc.bias": (4,)}


def state(seed: int) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {name: chance.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def mean(name: str, one: float, other: float) -> Any:
    """What a parameter of models 1 and 2 becomes: computed in float64, rounded once."""
    first, second = (state(seed)[name].astype(np.float64) for seed in (1, 2))
    return (one * first + other * second).astype(np.float32)


def checkpoint(path: Path, seed: int, **fields: Any) -> str:
    """A file as fairseq writes it."""
    model = {name: torch.from_numpy(values) for name, values in state(seed).items()}
    history = {"state": {0: {"exp_avg": torch.full((3,), float(seed))}}}
    saved = {"args": {"seed": seed}, "model": model | fields, "last_optimizer_state": history, "extra_state": seed}
    torch.save(saved, path)
    return str(path)


def loaded(path: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def order(*words: str, out: Path, layers: str = "", **pairs: str) -> Order:
    return Order(words, str(out), from_pairs(list(pairs.items())), layers)


def test_fairseq_files_by_weights(tmp_path: Path) -> None:
    words = [checkpoint(tmp_path / f"{seed}.pt", seed) for seed in (1, 2)]
    made = average(order(*words, out=tmp_path / "out.pt", weights=".1,.9"))
    found = loaded(tmp_path / "out.pt")
    assert made.computed == len(SHAPES)
    for name in SHAPES:
        assert np.array_equal(found["model"][name].numpy(), mean(name, 0.1, 0.9))
    assert found["args"] == {"seed": 1}
    assert found["extra_state"] == 1
    assert found["last_optimizer_state"]["state"][0]["exp_avg"].tolist() == [1, 1, 1]


@settings(max_examples=20, deadline=None)
@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_any_weights_count_as_shares(tmp_path_factory: pytest.TempPathFactory, weights: list[int]) -> None:
    folder = tmp_path_factory.mktemp("files")
    words = []
    for seed in range(len(weights)):
        save_file(state(seed), folder / f"{seed}.safetensors")
        words.append(str(folder / f"{seed}.safetensors"))
    made = average(order(*words, out=folder / "out.safetensors", weights=",".join(map(str, weights))))
    found = load_file(folder / "out.safetensors")
    assert made.shares == tuple(weight / sum(weights) for weight in weights)
    for name in SHAPES:
        expected = sum(w * state(seed)[name].astype(np.float64) for seed, w in enumerate(weights)) / sum(weights)
        assert np.allclose(found[name], expected, rtol=1e-6)


def test_one_model_alone_is_that_file(tmp_path: Path) -> None:
    odd = torch.tensor([float("inf"), -0.0, float("nan")])
    odd.view(torch.int32)[2] = 0x7FC12345  # a NaN with a payload
    words = [checkpoint(tmp_path / "a.pt", 1, odd=odd), checkpoint(tmp_path / "b.pt", 2, odd=torch.zeros(3))]
    average(order(*words, out=tmp_path / "first.pt", weights="1,0"))
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()
    average(order(*words, out=tmp_path / "second.pt", weights="0,1"))
    second = loaded(tmp_path / "second.pt")
    assert second["args"] == {"seed": 1}
    assert all(torch.equal(second["model"][name], loaded(words[1])["model"][name]) for name in SHAPES)


def test_names_count_and_not_places(tmp_path: Path) -> None:
    one, other = state(1), state(2)
    np.savez(tmp_path / "a.npz", **one)
    np.savez(tmp_path / "b.npz", **dict(reversed(other.items())))
    average(order(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), out=tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as found:
        for name in SHAPES:
            assert np.allclose(found[name], (one[name] + other[name]) / 2, atol=1e-7)


def test_layers_have_weights_of_their_own(tmp_path: Path) -> None:
    """The block merge of MDEL: embeddings and head of the second, a share of each for every layer."""
    words = [checkpoint(tmp_path / f"{seed}.pt", seed) for seed in (1, 2)]
    average(order(*words, out=tmp_path / "out.pt", layers="layers.0=.25,1-=.75", weights="0,1"))
    found = loaded(tmp_path / "out.pt")["model"]
    for name, share in {"embed.weight": 0, "layers.0.fc.weight": 0.25, "layers.1.fc.weight": 0.75}.items():
        assert np.array_equal(found[name].numpy(), mean(name, share, 1 - share))
    for layers in ("h.0=.5", "layers.7=1", "0=a", "0=.1/.2/.7", "x"):
        with pytest.raises(UsageError):
            average(order(*words, out=tmp_path / "none.pt", layers=layers))


def test_integers_are_the_same_or_an_error(tmp_path: Path) -> None:
    same = [checkpoint(tmp_path / f"{seed}.pt", seed, steps=torch.tensor([5])) for seed in (1, 2)]
    average(order(*same, out=tmp_path / "out.pt"))
    assert loaded(tmp_path / "out.pt")["model"]["steps"].tolist() == [5]
    other = checkpoint(tmp_path / "other.pt", 3, steps=torch.tensor([6]))
    with pytest.raises(MergeConflict, match="model.steps"):
        average(order(same[0], other, out=tmp_path / "none.pt"))
    average(order(same[0], other, out=tmp_path / "ours.pt", rule="*.steps ours"))
    assert loaded(tmp_path / "ours.pt")["model"]["steps"].tolist() == [5]


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    words = []
    for seed in (1, 2):
        table = torch.full((3, 2), float(seed))
        torch.save({"model": {"embed": table, "head": table}}, tmp_path / f"{seed}.pt")
        words.append(str(tmp_path / f"{seed}.pt"))
    average(order(*words, out=tmp_path / "out.pt"))
    found = loaded(tmp_path / "out.pt")["model"]
    assert found["head"].data_ptr() == found["embed"].data_ptr()
    assert found["head"].unique().tolist() == [1.5]
    with pytest.raises(ThetaError, match="shares its memory"):
        average(order(*words, out=tmp_path / "none.pt", exclude="*head"))


def test_strategies_with_a_base(tmp_path: Path) -> None:
    words = [checkpoint(tmp_path / f"{seed}.pt", seed) for seed in (0, 1, 2)]
    average(order(*words[1:], out=tmp_path / "out.pt", strategy="task_arithmetic", base=words[0], weights="1,1"))
    found = loaded(tmp_path / "out.pt")["model"]["embed.weight"].numpy()
    zero, one, two = (state(seed)["embed.weight"] for seed in (0, 1, 2))
    assert np.allclose(found, one + two - zero, atol=1e-5)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [({"weights": "1,2,3"}, 2), ({"weights": "1,-1"}, 2), ({"strategy": "nope"}, 2), ({"rule": "nope* ours"}, 2)],
)
def test_what_fails_leaves_nothing(tmp_path: Path, pairs: dict[str, str], words: int) -> None:
    files = [checkpoint(tmp_path / f"{seed}.pt", seed) for seed in range(words)]
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ThetaError):
        average(order(*files, out=tmp_path / "out.pt", **pairs))
    assert sorted(os.listdir(tmp_path)) == before


def test_the_order_of_the_files_has_no_say(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        save_file(state(seed), tmp_path / f"{seed}.safetensors")
    one, two, three = (str(tmp_path / f"{seed}.safetensors") for seed in (1, 2, 3))
    average(order(one, two, three, out=tmp_path / "x.safetensors", weights=".1,.3,.6"))
    average(order(three, one, two, out=tmp_path / "y.safetensors", weights=".6,.1,.3"))
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    words = [checkpoint(tmp_path / f"{seed}.pt", seed) for seed in (1, 2)]

    def progress(done: int, total: int) -> None:
        with open(words[1], "ab") as file:
            file.write(b"x")

    with pytest.raises(ThetaError, match="changed while it was read"):
        average(order(*words, out=tmp_path / "out.pt"), progress)
    assert sorted(os.listdir(tmp_path)) == ["1.pt", "2.pt"]


def test_files_that_are_no_models(tmp_path: Path) -> None:
    good = checkpoint(tmp_path / "a.pt", 1)
    np.savez_compressed(tmp_path / "small.npz", a=np.zeros(100))
    (tmp_path / "text").write_text("hello")
    for name, words in {"small.npz": "savez|tensors", "text": "tensors", "gone": "no file|neither a file"}.items():
        with pytest.raises(ThetaError, match=words):
            average(order(good, str(tmp_path / name), out=tmp_path / "out.pt"))
    with pytest.raises(ThetaError, match="exists already"):
        average(order(good, good, out=tmp_path / "a.pt"))


def test_what_there_is_not(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that is neither, a revision, and a path in one that is there: each is named as what it is."""
    repo.write("model/model.safetensors", state(1))
    repo.commit()
    repo.git("branch", "bare", "main~1")
    monkeypatch.chdir(repo.path)
    for word, said in {
        "nope.safetensors": "there is neither a file nor a commit 'nope.safetensors'",
        "nope:m.safetensors": "there is no commit 'nope'",
        "main:m.safetensors": "there is no file 'm.safetensors' in main",
        "bare": "there is no file 'model/model.safetensors' in bare",
    }.items():
        for tool, more in ((command, ["--out", "made.safetensors"]), (compare, [])):
            with pytest.raises(ThetaError, match=f"^{said}$"):
                CliRunner().invoke(tool, ["main", word, *more], catch_exceptions=False)


def test_commits_and_files(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write("model/model.safetensors", state(1))
    repo.commit()
    repo.git("switch", "--quiet", "-c", "legal")
    repo.write("model/model.safetensors", state(2))
    repo.commit()
    monkeypatch.chdir(repo.path)
    repo.write("priors/both.json", b'{"main": 0.25, "legal": 0.75}')
    run = CliRunner().invoke(command, ["main", "legal", "--weights", "prior:both", "--out", "m.safetensors"])
    assert run.exit_code == 0, run.output
    found = load_file(repo.path / "m.safetensors")
    for name in SHAPES:
        assert np.array_equal(found[name], mean(name, 0.25, 0.75))
    words = ["main:model/model.safetensors", "m.safetensors", "--out", "m.safetensors", "--force", "--weights", "3,1"]
    run = CliRunner().invoke(command, words)
    assert run.exit_code == 0, run.output
    assert "0.75, 0.25" in run.output

"""Text from ensembles: the same with and without caches of keys and values, and with few models in memory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Repo
from forest import BLOCK, DOMAINS, alone, forest, model, opened, planted  # noqa: F401

from git_theta_btm.btm.cli.ensemble import ensemble as command
from git_theta_btm.btm.ensembling.ensembles import Ensemble, members
from git_theta_btm.btm.ensembling.generation import Drawing, Reader, Shelf, Speaker
from git_theta_btm.btm.ensembling.posterior import POSTERIORS, mixture, weights
from git_theta_btm.btm.ensembling.spelling import decoder
from git_theta_btm.btm.ensembling.writing import write
from git_theta_btm.btm.evaluating.cells import Subject
from git_theta_btm.errors import UsageError

torch = pytest.importorskip("torch")
END = 256


def subject(seed: int) -> Subject:
    return Subject(f"model {seed}", "", "", lambda: model(seed))


def plain(seed: int, tokens: Any) -> Any:
    """What a model says after the last of some tokens, read at once."""
    with torch.no_grad():
        logits = model(seed)(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.double(), -1).numpy()


def test_reading_bit_by_bit_is_reading_at_once() -> None:
    with alone():
        tokens = np.random.default_rng(0).integers(0, 256, 20).tolist()
        reader = Reader(subject(0), Shelf(1, "cpu"), 32)
        rows = np.concatenate([reader.read(tokens[:7]), reader.read(tokens[7:8]), reader.read(tokens[8:])])
        for index in (0, 6, 7, 19):
            assert rows[index] == pytest.approx(plain(0, tokens[: index + 1]), abs=1e-4)


def test_a_long_text_goes_on_from_its_last_half() -> None:
    with alone():
        tokens = np.random.default_rng(0).integers(0, 256, 50).tolist()
        for step in (1, 7, 50):
            reader = Reader(subject(0), Shelf(1, "cpu"), 16)
            rows = np.concatenate([reader.read(tokens[at : at + step]) for at in range(0, 50, step)])
            assert rows.shape == (50, 258)
            assert rows[15] == pytest.approx(plain(0, tokens[:16]), abs=1e-4)
            assert rows[16] == pytest.approx(plain(0, tokens[8:17]), abs=1e-4)
            assert rows[49] == pytest.approx(plain(0, tokens[40:50]), abs=1e-4)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_next_token_is_of_the_mixture(posterior: str) -> None:
    with alone():
        tokens, prior = [END, 5, 77, 200, 3, 9], (0.2, 0.8)
        speaker = Speaker([subject(0), subject(1)], (prior, posterior), (32, END), Drawing(device="cpu"))
        speaker.read(tokens[:4])
        speaker.read(tokens[4:])
        said = [[plain(seed, tokens[:at])[tokens[at]] for at in range(1, 6)] for seed in (0, 1)]
        following = np.stack([plain(seed, tokens) for seed in (0, 1)])
    for token in (0, 100):
        losses = np.array([[*row, after] for row, after in zip(said, following[:, token], strict=True)])[:, None]
        expected = mixture(losses, weights(losses, np.array(prior), posterior))[0, -1]
        assert speaker.distribution()[token] == pytest.approx(expected, abs=1e-4)
    assert np.exp(speaker.distribution()).sum() == pytest.approx(1)


def test_few_models_in_memory_write_the_same(forest: Repo) -> None:  # noqa: F811
    repository = opened(forest)
    trio = Ensemble((*members(repository, DOMAINS), *members(repository, ("main",))))
    texts = {write(repository, trio, "the old ", 12, Drawing(1.0, 3, loaded)) for loaded in (None, 1, 2)}
    assert len(texts) == 1
    shelf = Shelf(2, "cpu")
    readers = [Reader(subject(seed), shelf, 16) for seed in range(3)]
    for step in range(4):
        for reader in readers[:: -1 if step % 2 else 1]:
            reader.read([step])
    assert shelf.loads == 3 + 3  # to and fro: one of three is loaded each time, not all


def test_drawing(forest: Repo) -> None:  # noqa: F811
    repository = opened(forest)
    pair = Ensemble(members(repository, DOMAINS))
    greedy = write(repository, pair, "12+", 30, Drawing())
    assert greedy == write(repository, pair, "12+", 30, Drawing(seed=9))
    one, same, other = (write(repository, pair, "12+", 30, Drawing(1.0, seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert set(greedy) <= set("0123456789+=;\n")  # the prompt says whose text it is
    assert not set(write(repository, pair, "the old ", 30, Drawing())) & set("0123456789")
    for wrong in ({"temperature": -1.0}, {"loaded": 0}):
        with pytest.raises(UsageError):
            Drawing(**wrong)  # type: ignore[arg-type]


def test_the_command(forest: Repo) -> None:  # noqa: F811
    assert CliRunner().invoke(command, ["create", "all"]).exit_code == 0
    done = CliRunner().invoke(command, ["generate", "all", "--prompt", "the fox ", "--tokens", "20"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("the fox ")
    words = ["generate", "all", "--prompt", "the fox ", "--tokens", "20", "--topk", "1", "--prior", "0,1", "--json"]
    text = json.loads(CliRunner().invoke(command, words).stdout)["text"]
    assert 0 < len(text) <= 20
    assert CliRunner().invoke(command, ["generate", "all", "--tokens", "0"]).stdout == "\n"


def test_spelling() -> None:
    assert decoder(".", "bytes")([104, 195, 164, 256, 257, 33, 0xFF]) == "hä!\ufffd"
    assert BLOCK < 64  # what the models here have positions for

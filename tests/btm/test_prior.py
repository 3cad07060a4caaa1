"""Priors: EM at the maximum, BTM's moving average, and the file that merges read."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Repo
from forest import DOMAINS, forest, opened, planted  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_btm.btm.cli.prior import prior as command
from git_theta_btm.btm.ensembling.estimators import em, estimate
from git_theta_btm.btm.ensembling.gathering import windows
from git_theta_btm.btm.ensembling.posterior import updating
from git_theta_btm.btm.ensembling.prior import Estimation, measure
from git_theta_btm.btm.ensembling.prior import estimate as of_domain
from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.merging.weights import posterior, read


def rows(count: int, experts: int, scale: float, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(-50, scale, (count, experts))


@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from([0.0, 0.01, 1.0, 30.0]), st.integers(0, 999))
@settings(deadline=None, max_examples=100)
def test_em_is_at_the_maximum(count: int, experts: int, scale: float, seed: int) -> None:
    """A concave function is at its maximum on the simplex if no gradient is above their weighted mean, 1."""
    found = rows(count, experts, scale, seed)
    weights = em(found)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    likelihoods = np.exp(found - found.max(axis=1, keepdims=True))
    assert (likelihoods / (likelihoods @ weights)[:, None]).mean(axis=0).max() <= 1 + 1e-9


def test_em_finds_what_plain_em_finds() -> None:
    found = rows(60, 3, 3.0)
    plain = np.full(3, 1 / 3)
    likelihoods = np.exp(found - found.max(axis=1, keepdims=True))
    for _ in range(20_000):
        shares = likelihoods * plain
        plain = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    assert em(found) == pytest.approx(plain, abs=1e-9)
    assert em(found[::-1]) == pytest.approx(em(found), abs=1e-9)  # whatever the order


def test_em_of_what_is_clear() -> None:
    assert em(np.zeros((5, 4))) == pytest.approx([0.25] * 4)
    sure = np.array([[0.0, -900.0]] * 3 + [[-900.0, 0.0]])
    assert em(sure) == pytest.approx([0.75, 0.25], abs=1e-9)
    impossible = np.array([[-1.0, -np.inf], [-np.inf, -np.inf]])
    assert em(impossible) == pytest.approx([1.0, 0.0], abs=1e-9)


def test_the_other_estimators() -> None:
    found = np.random.default_rng(0).normal(-3, 1, (3, 9, 6))
    assert estimate(found, "ema") == pytest.approx(list(updating(found))[-1].average)
    ends = np.exp(found[:, :, :-1].sum(axis=2))  # what is known before the last prediction
    shares = ends / ends.sum(axis=0)
    decay = 0.3 ** np.arange(1, 10)
    assert estimate(found, "paper") == pytest.approx((shares * decay).sum(axis=1) / decay.sum())
    assert estimate(found, "em") == pytest.approx(em(found.sum(axis=2).T))
    with pytest.raises(UsageError, match="em, ema, paper"):
        estimate(found, "guess")
    with pytest.raises(UsageError, match="two tokens"):
        estimate(np.full((2, 1, 3), np.nan), "ema")


def test_windows_of_a_stream() -> None:
    tokens = np.arange(103)
    assert windows(tokens, 10, 3, spread=False).tolist() == list(range(30))
    assert windows(tokens, 10, 3, spread=True)[::10].tolist() == [0, 40, 90]
    assert windows(tokens, 10, 11, spread=True) is tokens
    assert Estimation(estimator="ema").windows == 2 * 101


def test_the_right_expert_is_found(forest: Repo) -> None:  # noqa: F811
    repository = opened(forest)
    for domain in DOMAINS:
        shares = of_domain(repository, DOMAINS, domain)
        assert list(shares) == list(DOMAINS)
        assert max(shares, key=lambda name: shares[name]) == domain
        assert math.fsum(shares.values()) == pytest.approx(1)
        for estimator in ("ema", "paper"):
            found = measure(repository, (), domain, Estimation(samples=8, estimator=estimator))
            assert found.best == domain


def test_the_command_commits_a_file_that_merges_read(forest: Repo) -> None:  # noqa: F811
    forest.write("other.txt", b"staged\n")
    forest.git("add", "other.txt")
    done = CliRunner().invoke(command, ["sums", "--samples", "6"])
    assert done.exit_code == 0, done.output
    assert "sums is most like sums" in done.stderr
    assert forest.git("show", "--format=%s", "--name-only").split("\n") == [
        "Estimate the prior of sums", "", "priors/sums.json",
    ]  # fmt: skip
    assert forest.status() == "A  other.txt"  # what else was staged still is
    path = str(forest.path / "priors/sums.json")
    shares = read(path)
    assert isinstance(shares, dict)
    assert posterior(path, ("tales", "sums")) == pytest.approx((shares["tales"], shares["sums"]))
    document = json.loads(forest.blob("priors/sums.json", "HEAD"))
    assert [row["commit"] for row in document["experts"]] == [forest.git("rev-parse", name) for name in DOMAINS]
    tip = forest.git("rev-parse", "HEAD")
    assert CliRunner().invoke(command, ["sums", "--samples", "6"]).exit_code == 0
    assert forest.git("rev-parse", "HEAD") == tip  # the same file, no commit


def test_btms_log(forest: Repo) -> None:  # noqa: F811
    words = ["tales", "--estimator", "ema", "--samples", "3", "--json", "--log", "log.jsonl", "-o", "prior.json"]
    done = CliRunner().invoke(command, [*words, "--experts", "tales,sums"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (forest.path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 4  # --max-samples 3 stops after the batch of that number, counted from 0
    assert all(math.fsum(line["posterior"]) == pytest.approx(1) for line in lines)
    assert read(str(forest.path / "log.jsonl")) == tuple(lines[-1]["exp_avg_posterior"])
    found = json.loads(done.stdout)
    assert list(found["prior"].values()) == pytest.approx(lines[-1]["exp_avg_posterior"])
    assert found["best"] == "tales"
    assert not (forest.path / "priors").exists()


def test_what_cannot_be_estimated(forest: Repo) -> None:  # noqa: F811
    repository = opened(forest)
    with pytest.raises(ThetaError, match="there is no data/law/valid"):
        of_domain(repository, DOMAINS, "law")
    with pytest.raises(ThetaError, match="no revision 'law'"):
        of_domain(repository, ("law",), "sums")
    for options in ({"samples": 0}, {"alpha": 0.0}, {"alpha": 1.5}):
        with pytest.raises(UsageError):
            Estimation(**options)  # type: ignore[arg-type]

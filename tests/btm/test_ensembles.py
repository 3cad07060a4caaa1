"""Ensembles of real experts: their files, their perplexities, and the same numbers from two processes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Repo
from forest import BLOCK, DOMAINS, forest, opened, planted, stream  # noqa: F401

from git_theta_btm.btm.cli.ensemble import ensemble as command
from git_theta_btm.btm.ensembling import gathering
from git_theta_btm.btm.ensembling.clustering import EVERY, priors
from git_theta_btm.btm.ensembling.ensembles import Ensemble, Member, loads, members, prior, read
from git_theta_btm.btm.ensembling.mixing import run
from git_theta_btm.btm.ensembling.prior import estimate
from git_theta_btm.btm.evaluating.cells import Running, subject
from git_theta_btm.btm.evaluating.losses import log_probs
from git_theta_btm.btm.evaluating.perplexity import score
from git_theta_btm.errors import ThetaError, UsageError

RUNNING = Running(BLOCK, "cpu")


def invoke(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(command, list(words))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def own(repo: Repo, name: str, tokens: Any) -> float:
    """One model's perplexity."""
    return score(log_probs(subject(opened(repo), name).load(), tokens, BLOCK)).perplexity


def test_the_orderings_of_branch_train_merge(forest: Repo) -> None:  # noqa: F811
    repository = opened(forest)
    experts = members(repository, DOMAINS)
    mixed = np.concatenate([part for seed in range(6) for part in (stream(name, 50 + seed, 3) for name in DOMAINS)])
    for domain in DOMAINS:
        tokens = stream(domain, 90, 20)
        singles = {name: own(forest, name, tokens) for name in ("main", *DOMAINS)}
        assert singles[domain] < 0.95 * singles["main"]
        assert min(singles, key=lambda name: singles[name]) == domain
        shares = tuple(estimate(repository, DOMAINS, domain).values())
        cached = run(repository, Ensemble(experts, shares, "cached-prior"), tokens, RUNNING)
        assert cached.score.perplexity <= 1.01 * singles[domain]
    found = run(repository, Ensemble(experts), mixed, RUNNING)
    assert found.score.perplexity < min(own(forest, name, mixed) for name in ("main", *DOMAINS))
    assert found.score.tokens == len(mixed) - -(-len(mixed) // BLOCK)
    simple = run(repository, Ensemble(experts, type="simple-average"), mixed, RUNNING)
    assert found.score.perplexity < simple.score.perplexity


@pytest.mark.parametrize("kind", ["simple-average", "uniform-prior", "updating-prior"])
def test_copies_of_one_expert_are_that_expert(forest: Repo, kind: str) -> None:  # noqa: F811
    repository, tokens = opened(forest), stream("sums", 7, 10)
    commit = forest.git("rev-parse", "sums")
    copies = Ensemble(tuple(Member(name, commit) for name in "abc"), type=kind)
    found = run(repository, copies, tokens, RUNNING)
    assert found.score.perplexity == pytest.approx(own(forest, "sums", tokens), rel=1e-9)
    assert found.shares == pytest.approx((1 / 3,) * 3)


def test_the_largest_of_a_prior(forest: Repo) -> None:  # noqa: F811
    repository, tokens = opened(forest), stream("tales", 7, 5)
    experts = members(repository, DOMAINS)
    full = Ensemble(experts, (0.4, 0.6), "cached-prior", "last-token")
    assert run(repository, full, tokens, RUNNING) == run(
        repository, Ensemble(experts, (0.4, 0.6), "cached-prior", "last-token", 2), tokens, RUNNING
    )
    best = Ensemble(experts, (0.4, 0.6), "cached-prior", "last-token", 1)
    assert [member.name for member in best.kept.experts] == ["tales"]
    found = run(repository, best, tokens, RUNNING)
    assert found.score.perplexity == pytest.approx(own(forest, "tales", tokens), rel=1e-9)


def test_two_processes_say_the_same(forest: Repo, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    invoke("create", "three", "sums", "tales", "seed=main", "--prior", "2,1,1", "--topk", "3")
    one = json.loads(invoke("eval", "three", "--json").stdout)
    two = json.loads(invoke("eval", "three", "--json", "--processes", "2").stdout)
    for alone, shared in zip(one["domains"], two["domains"], strict=True):
        assert shared["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-6)
        assert shared["shares"] == pytest.approx(alone["shares"], rel=1e-5)
        assert shared["tokens"] == alone["tokens"]
    done = CliRunner().invoke(command, ["eval", "three", "--data", "law", "--processes", "2"])
    assert "there is no data/law/test" in str(done.exception)


def test_the_life_of_a_file(forest: Repo) -> None:  # noqa: F811
    invoke("create", "all")
    assert forest.git("log", "-1", "--format=%s") == "Make the ensemble all"
    commit = forest.git("rev-parse", "sums")
    made = json.loads(forest.blob("ensembles/all.json", "HEAD"))
    assert made["experts"][0] == {"name": "sums", "revision": commit}
    assert made["prior"] is None
    with pytest.raises(ThetaError, match="ensembles/all.json is there already: --force"):
        CliRunner().invoke(command, ["create", "all", "tales"], catch_exceptions=False)
    assert json.loads((forest.path / "ensembles/all.json").read_bytes()) == made
    invoke("create", "all", "sums", "tales", "--prior", "3,1", "--no-commit", "--force")
    assert forest.status() == "M  ensembles/all.json"
    shown = json.loads(invoke("show", "all", "--json").stdout)
    assert shown["prior"] == {"sums": 0.75, "tales": 0.25}
    assert shown["type"] == "cached-prior"
    invoke("rm", "all", "sums")
    assert read(opened(forest), "all").prior == (1.0,)
    invoke("add", "all", "sums", "--follow")
    found = read(opened(forest), "all")
    assert found.prior is None
    assert found.type == "uniform-prior"
    assert found.experts[1] == Member("sums", "refs/heads/sums")
    assert invoke("eval", "all", "--data", "sums").stdout.split("\n")[0].split() == [
        "domain", "perplexity", "tales", "sums",
    ]  # fmt: skip
    invoke("rm", "all")
    assert not (forest.path / "ensembles/all.json").exists()
    assert forest.status() == ""


def test_a_removed_expert_has_no_say(forest: Repo) -> None:  # noqa: F811
    invoke("create", "all", "--posterior", "history")
    before = json.loads(invoke("eval", "all", "--data", "sums", "--json").stdout)["domains"][0]
    assert before["shares"]["sums"] > 0.9
    invoke("rm", "all", "sums")
    after = json.loads(invoke("eval", "all", "--data", "sums", "--json").stdout)["domains"][0]
    assert after["shares"] == {"tales": 1.0}
    assert after["perplexity"] > before["perplexity"]


def test_priors_of_all_kinds(forest: Repo) -> None:  # noqa: F811
    assert prior("1,3", DOMAINS) == (0.25, 0.75)
    (forest.path / "log.jsonl").write_text('{"exp_avg_posterior": [1, 0]}\n{"exp_avg_posterior": [0.2, 0.8]}\n')
    assert prior("log.jsonl", DOMAINS) == (0.2, 0.8)
    (forest.path / "p.json").write_text('{"prior": {"tales": 0.3, "sums": 0.7}}')
    assert prior("p.json", DOMAINS) == (0.7, 0.3)
    for wrong in ("1,2,3", "0,0", "-1,2", "nan,1", "nothing.json"):
        with pytest.raises(UsageError):
            prior(wrong, DOMAINS)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "[" * 100_000, '{"version": 2}', '{"version": 1}', '{"version": 1, "experts": 3}',
        '{"version": 1, "experts": [{"name": "a"}]}', '{"version": 1, "experts": []}',
        '{"version": 1, "experts": [{"name": "a", "revision": 3}]}',
        '{"version": 1, "experts": [{"name": "a", "revision": "a"}], "prior": {"b": 1}}',
        '{"version": 1, "experts": [{"name": "a", "revision": "a"}], "prior": [1, 2]}',
        '{"version": 1, "experts": [{"name": "a", "revision": "a"}], "type": "guess"}',
        '{"version": 1, "experts": [{"name": "a", "revision": "a"}], "topk": 0}',
        '{"version": 1, "experts": [{"name": "a", "revision": "a"}], "topk": true}',
        '{"version": 1, "experts": [{"name": "a", "revision": "a"}, {"name": "a", "revision": "b"}]}',
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line(text: str) -> None:
    with pytest.raises(ThetaError):
        loads(text)


@pytest.mark.parametrize("name", ["../up", "a//b", ".hidden", "/etc/x", "a/../../b", ""])
def test_names_stay_in_their_folder(forest: Repo, name: str) -> None:  # noqa: F811
    with pytest.raises(ThetaError, match="cannot be the name"):
        read(opened(forest), name)


def test_weights_by_clusters_never_look_ahead() -> None:
    tokens = np.arange(230)
    asked = []

    def shares(seen: Any) -> list[float]:
        asked.append(list(seen))
        share = len(seen) / 1000
        return [share, 1 - share]

    found = priors(tokens, 100, shares)
    assert found.shape == (2, 3, 99)
    assert asked[1] == list(range(EVERY))
    for window in range(2):
        for index in range(99):  # prediction i is of token i + 1, and knows i + 1 tokens
            assert found[0, window, index] * 1000 == pytest.approx((index + 1) // EVERY * EVERY)
    assert math.isclose(found[:, 2, 50].sum(), 1)


def test_an_ensemble_of_clusters(forest: Repo) -> None:  # noqa: F811
    discovery = pytest.importorskip("git_theta_btm.btm.data.discovery")
    pytest.importorskip("sklearn")
    from forest import documents

    texts = [text for name in DOMAINS for text in documents(name, 3, 30)]
    clusters, labels = discovery.discover(texts, 2)
    assert len(set(labels[:30])) == len(set(labels[30:])) == 1
    discovery.save(clusters, str(forest.path), "two")
    order = [DOMAINS[0], DOMAINS[1]] if labels[0] == 0 else [DOMAINS[1], DOMAINS[0]]
    found = Ensemble(members(opened(forest), order), None, "clustering", "static", clusters="two")
    mixed = run(opened(forest), found, stream("tales", 9, 20), RUNNING)
    assert mixed.shares[order.index("tales")] > 0.5
    with pytest.raises(UsageError, match="2 clusters, the ensemble 1 experts"):
        run(
            opened(forest),
            Ensemble(found.experts[:1], None, "clustering", clusters="two"),
            stream("sums", 9, 2),
            RUNNING,
        )


def test_what_an_expert_makes_of_a_text_is_computed_once(forest: Repo, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    repository, tokens = opened(forest), stream("sums", 77, 3)
    place = forest.path / ".git/btm/losses"
    before = set(place.iterdir()) if place.exists() else set()
    ensemble = Ensemble(members(repository, DOMAINS), type="simple-average")
    first = run(repository, ensemble, tokens, RUNNING)
    kept = sorted(set(place.iterdir()) - before)
    assert len(kept) == len(DOMAINS)
    whole = {path: path.read_bytes() for path in kept}
    for path in kept:
        (np.fromfile(path, np.float32) - 1).tofile(path)
    another = run(repository, ensemble, tokens, RUNNING)
    assert another.score.perplexity == pytest.approx(math.e * first.score.perplexity, rel=1e-5)
    assert run(repository, ensemble, tokens, Running(BLOCK, "cpu", force=True)) == first
    assert {path: path.read_bytes() for path in kept} == whole
    kept[0].write_bytes(whole[kept[0]][:100])
    assert run(repository, ensemble, tokens, RUNNING) == first
    monkeypatch.setattr(gathering, "_KEPT", len(whole[kept[0]]))
    assert run(repository, ensemble, tokens, Running(BLOCK, "cpu", force=True)) == first
    assert len(list(place.glob("*.f32"))) == 1


def test_many_experts_and_losses_that_do_not_fit_in_memory(forest: Repo, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    repository, tokens = opened(forest), stream("sums", 5, 3)
    names = [f"expert-{number}" for number in range(64)]
    for number, name in enumerate(names):
        forest.git("branch", name, DOMAINS[number % 2])
    many = Ensemble(members(repository, names))
    within = run(repository, many, tokens, RUNNING)
    monkeypatch.setattr(gathering, "_MEMORY", 1)
    assert run(repository, many, tokens, RUNNING) == within
    assert {item.suffix for item in (forest.path / ".git/btm/losses").iterdir()} == {".f32"}
    two = run(repository, Ensemble(members(repository, DOMAINS)), tokens, RUNNING)
    assert within.score.perplexity == pytest.approx(two.score.perplexity, rel=1e-9)
    assert sum(within.shares[::2]) == pytest.approx(two.shares[0])

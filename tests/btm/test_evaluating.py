"""``git btm eval``: tables of real experts, nothing computed twice, bisection, and tasks of lm-eval."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Repo
from forest import BLOCK, DOMAINS, TEXT, forest, opened, planted  # noqa: F401

from git_theta_btm.btm.cli.evaluate import eval as command
from git_theta_btm.btm.data.tokens import load
from git_theta_btm.btm.ensembling.ensembles import Ensemble, members
from git_theta_btm.btm.ensembling.generation import Drawing
from git_theta_btm.btm.ensembling.writing import write
from git_theta_btm.btm.evaluating import cells
from git_theta_btm.btm.evaluating.cells import Running, evaluate, mean, subject, text
from git_theta_btm.btm.evaluating.fewshot import read
from git_theta_btm.btm.evaluating.results import REF
from git_theta_btm.btm.models import ModelAt
from git_theta_btm.errors import ThetaError, UsageError

torch = pytest.importorskip("torch")
FIELDS = (
    "date", "runtime", "model", "tokenizer", "dataset", "split", "max_length", "dataset_key", "num_samples",
    "perplexity",
)  # fmt: skip


def invoke(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(command, list(words))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def by_hand(repo: Repo, revision: str, domain: str) -> float:
    """Perplexity by one pass over each window, in float64."""
    found, stream = ModelAt(opened(repo), revision).model(), load(opened(repo), domain, "test", TEXT).tokens
    losses = []
    for start in range(0, len(stream), BLOCK):
        window = torch.tensor(stream[start : start + BLOCK].astype(np.int64))
        with torch.no_grad():
            said = torch.log_softmax(found(input_ids=window[None]).logits[0].double(), -1)
        losses += [-float(said[index, token]) for index, token in enumerate(window[1:])]
    return math.exp(math.fsum(losses) / len(losses))


def test_the_matrix_has_its_least_on_the_diagonal(forest: Repo) -> None:  # noqa: F811
    found = json.loads(invoke("--matrix", "--json").stdout)
    assert [row["model"] for row in found["models"]] == ["seed", *DOMAINS]
    for row in found["models"]:
        for domain in DOMAINS:
            perplexity = row["scores"][domain]["perplexity"]
            assert perplexity == pytest.approx(by_hand(forest, row["commit"], domain), rel=1e-6)
        assert row["worst_perplexity"] == max(score["perplexity"] for score in row["scores"].values())
        losses = [score["loss"] for score in row["scores"].values()]
        assert row["uniform_avg_log_perplexity"] == pytest.approx(sum(losses) / 2)
        assert row["worst_case_log_perplexity"] == max(losses)
    table = [line.split() for line in invoke("--matrix").stdout.splitlines()]
    assert table[0] == ["model", *DOMAINS, "mean", "worst"]
    for column, domain in enumerate(DOMAINS, 1):
        assert [row[0] for row in table[1:] if row[column].endswith("*")] == [domain]


def test_nothing_is_computed_twice(forest: Repo, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    first = invoke("sums", "tales", "--json").stdout
    runs = []
    monkeypatch.setattr(cells, "log_probs", lambda *words: runs.append(words))
    monkeypatch.setattr(ModelAt, "model", lambda self: runs.append(self))
    assert invoke("tales", "sums", "--matrix", "--json", "--data", "sums,tales").exit_code == 0
    assert json.loads(invoke("sums", "tales", "--json").stdout) == json.loads(first)
    forest.git("commit", "--quiet", "--allow-empty", "-m", "the same model in another commit")
    forest.git("branch", "copy", "sums")
    assert invoke("copy", "--data", "sums").exit_code == 0
    assert not runs
    with pytest.raises(AttributeError):  # it wants the model now
        CliRunner().invoke(command, ["sums", "--force"], catch_exceptions=False)
    assert int(forest.git("rev-list", "--count", REF)) == 2  # one for each model


def test_the_default_is_the_model_that_is_checked_out(forest: Repo) -> None:  # noqa: F811
    assert invoke().stdout.splitlines()[0].split() == ["model", *DOMAINS, "mean", "worst"]  # a seed: all domains
    forest.git("checkout", "--quiet", "tales")
    header, row = invoke().stdout.splitlines()
    assert header.split() == ["model", "tales"]
    assert row.split()[0] == "HEAD"
    assert float(row.split()[1]) == pytest.approx(by_hand(forest, "tales", "tales"), abs=1e-3)


def test_history_is_a_line_for_each_checkpoint(forest: Repo) -> None:  # noqa: F811
    found = json.loads(invoke("sums", "--history", "--json", "--data", "sums").stdout)["models"]
    assert [row["model"].split()[1:] for row in found] == [["step", "40"], ["step", "60"], ["step", "80"]]
    perplexities = [row["scores"]["sums"]["perplexity"] for row in found]
    assert perplexities == sorted(perplexities, reverse=True)


def test_bisection_finds_the_commit_that_spoilt_a_model(forest: Repo) -> None:  # noqa: F811
    forest.git("checkout", "--quiet", "sums")
    good = forest.git("rev-parse", "HEAD")
    limit = 1.2 * by_hand(forest, "sums", "sums")
    for number in range(2):
        forest.write("notes.txt", b"%d" % number)
        forest.commit("notes")
    found = ModelAt(opened(forest), "HEAD").model()
    with torch.no_grad():
        found.transformer.wte.weight.mul_(0.2)
    found.save_pretrained(forest.path / "model")
    bad = forest.commit("spoilt")
    forest.write("notes.txt", b"more")
    forest.commit("notes")
    invoke(*(f"HEAD~{back}" for back in range(4)), "--data", "sums")  # so that no process has to load torch
    forest.git("bisect", "start", "HEAD", good)
    script = "import sys; from git_theta_btm.btm.cli import main; sys.argv[0] = 'git-btm'; main()"
    words = [sys.executable, "-c", script, "eval", "--data", "sums", "--below", f"{limit:.3f}"]
    said = forest.git("bisect", "run", *words)
    assert f"{bad} is the first bad commit" in said


def test_exit_codes_for_bisection(forest: Repo) -> None:  # noqa: F811
    invoke("sums", "--below", "200")
    invoke("sums", "--below", "1.01", code=1)
    done = invoke("sums", "--data", "law", "--below", "5", code=125)
    assert "there is no data/law/test" in done.stderr
    assert isinstance(CliRunner().invoke(command, ["sums", "--data", "law"]).exception, ThetaError)


def test_mdels_log_grows(forest: Repo) -> None:  # noqa: F811
    for _ in range(2):
        invoke("sums", "tales", "--jsonl", "results.jsonl")
    rows = [json.loads(line) for line in (forest.path / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert all(tuple(row) == FIELDS for row in rows)
    assert rows[0]["model"] == f"sums@{forest.git('rev-parse', 'sums')}"
    assert rows[0]["perplexity"] == pytest.approx(by_hand(forest, "sums", "sums"), rel=1e-6)


def test_the_mean_of_models_in_memory(forest: Repo) -> None:  # noqa: F811
    repository = opened(forest)
    models = [ModelAt(repository, name).model().state_dict() for name in DOMAINS]
    for shares, words in (((0.5, 0.5), []), ((0.9, 0.1), ["--weights", ".9,.1"])):
        found = mean(repository, DOMAINS, shares).load().state_dict()
        for name, value in found.items():
            assert torch.allclose(value, shares[0] * models[0][name] + shares[1] * models[1][name], atol=1e-6)
        invoke("--average", "sums,tales", "--data", "sums", *words)
    assert mean(repository, ("sums",)).load().state_dict().keys() == models[0].keys()
    with pytest.raises(UsageError, match="3 weights for 2 models"):
        mean(repository, DOMAINS, (1, 2, 3))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sums", "--weights", "1,2"], "--weights goes with --average"),
        (["--average", "sums,tales", "--history"], "--history and --average exclude each other"),
        (["--matrix", "--history"], "exclude each other"),
        (["--fewshot", "task.yaml", "--jsonl", "log.jsonl"], "--jsonl"),
    ],
)
def test_options_that_would_have_no_say(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(command, words, catch_exceptions=False)


def test_text_that_only_an_experts_branch_has(forest: Repo) -> None:  # noqa: F811
    before = text(opened(forest), "sums", "test", TEXT).digest
    forest.git("rm", "--quiet", "-r", "data/sums")
    forest.git("commit", "--quiet", "-m", "text goes to its branch")
    assert text(opened(forest), "sums", "test", TEXT).digest == before
    with pytest.raises(ThetaError, match="there is no data/law/test"):
        text(opened(forest), "law", "test", TEXT)


def test_a_device_that_is_not_there(forest: Repo) -> None:  # noqa: F811
    repository = opened(forest)
    with pytest.raises(UsageError, match="device 'cuda:7'"):
        evaluate(
            repository, [subject(repository, "sums")], {"sums": text(repository, "sums", "test", TEXT)},
            Running(BLOCK, "cuda:7"),
        )  # fmt: skip


TASK = """\
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: letters.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["1;", "fox"]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
ROLLING = """\
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: texts.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: byte_perplexity}]
"""
ANSWERS = """\
task: answers
dataset_path: json
dataset_kwargs: {data_files: {test: answers.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 40}
metric_list: [{metric: exact_match}]
"""


@pytest.mark.filterwarnings("ignore")  # of lm-eval and what it imports
def test_tasks_of_lm_eval(forest: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("lm_eval")
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    forest.write("letters.yaml", TASK.encode())
    rows = [{"question": "1+20=2", "answer": 0}, {"question": "the old ", "answer": 1}] * 3
    forest.write("letters.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    forest.write("rolling.yaml", ROLLING.encode())
    forest.write("texts.jsonl", json.dumps({"text": "1+1=2;\n2+2=4;\n" * 8}).encode() + b"\n")
    forest.write("answers.yaml", ANSWERS.encode())
    alone = write(opened(forest), Ensemble(members(opened(forest), ["sums"])), "1+1=", 40, Drawing())
    answer = {"question": "1+1=", "answer": alone.partition("\n")[0]}
    forest.write("answers.jsonl", json.dumps(answer).encode() + b"\n")
    tasks = [word for name in ("letters", "rolling", "answers") for word in ("--fewshot", f"{name}.yaml")]
    done = invoke("sums", "main", *tasks, "--json")
    found = {(row["model"], row["task"]): row for row in json.loads(done.stdout)["results"]}
    assert found["sums", "letters"]["metric"] == "acc"
    assert found["sums", "letters"]["examples"] == 6
    assert found["sums", "letters"]["value"] >= 0.5
    assert found["sums", "answers"]["value"] == 1  # what it writes, it is asked for
    assert 1 < found["sums", "rolling"]["value"] < found["main", "rolling"]["value"]


def test_files_that_are_no_tasks(tmp_path: Path) -> None:
    for content, words in (
        (b"[]", "no task"), (b"task: [", "while parsing"), (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"task: 3", "no task"),
        (b"task: a\nprocess_docs: !function evil.run\n", "would run code"),
        (b"task: a\nx: !!python/object/apply:os.system [ls]\n", "would run code"),
    ):  # fmt: skip
        (tmp_path / "task.yaml").write_bytes(content)
        with pytest.raises(ThetaError, match=words):
            read(str(tmp_path / "task.yaml"))
    with pytest.raises(ThetaError, match="No such file"):
        read(str(tmp_path / "none.yaml"))

"""Trainings, run for real on tiny models: what is committed, what changes, and what is left alone."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Repo
from grove import SETTINGS, WARNINGS, digest, entries, in_a_child, plant, request, seed_request, torch

from git_theta_btm.btm import settings as btm_settings
from git_theta_btm.btm.models import ModelAt
from git_theta_btm.btm.training.branching import Point, branch, from_mixture, line
from git_theta_btm.btm.training.branching import seeds as saved_seeds
from git_theta_btm.btm.training.committing import Content, Line
from git_theta_btm.btm.training.records import latest, origin, records
from git_theta_btm.btm.training.requests import Part, loads
from git_theta_btm.btm.training.running import run
from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.repository import Repository

pytestmark = WARNINGS


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory)


@pytest.fixture
def grove(planted: Path, tmp_path: Path) -> Repo:
    return Repo(Path(shutil.copytree(planted, tmp_path / "grove", symlinks=True)))


# -- what is committed -------------------------------------------------------------------------------------------------


def test_a_seed_is_commits_on_the_branch(grove: Repo) -> None:
    git = Repository(str(grove.path)).git
    found = [record for record in records(git, "main")]
    assert [record.checkpoint.step for record in found] == [4, 2]
    assert [record.checkpoint.tokens for record in found] == [4 * 4 * 32, 2 * 4 * 32]
    assert all(record.checkpoint.domain == "" and record.trailers["Balance"] == "equal" for record in found)
    assert found[0].checkpoint.loss is not None and found[0].checkpoint.loss < found[1].checkpoint.loss < 6
    assert grove.status() == ""
    files = set(grove.git("ls-tree", "-r", "--name-only", "main", "model", "training").split("\n"))
    assert files == {
        "model/config.json", "model/generation_config.json", "model/model.safetensors", "training/optimizer.pt",
        "training/rng_state.pth", "training/scheduler.pt", "training/trainer_state.json",
    }  # fmt: skip


def test_the_users_tree_follows(planted: Path) -> None:
    """Not a copy, which git would look at anew: the models are files, not stubs, and git knows them."""
    with open(planted / "model/model.safetensors", "rb") as file:
        assert int.from_bytes(file.read(8), "little") < 100_000
    assert Repo(planted).status() == ""
    assert Repo(planted).git("worktree", "list").count("\n") == 0


def test_a_branch_changes_nothing(grove: Repo) -> None:
    """Update, moments, and all else are the seed's; the second call makes nothing."""
    repository = Repository(str(grove.path))
    assert grove.git("rev-parse", "code^{tree}") == grove.git("rev-parse", "main^{tree}")
    assert grove.git("rev-parse", "code~1") == grove.git("rev-parse", "main")
    first = origin(repository.git, "code")
    assert first and first.checkpoint.step == 4 and first.reset == {"dataloader"}
    assert first.checkpoint.seed == grove.git("rev-parse", "main")
    again = branch(repository, "code", Point(update=2))
    assert (again.commit, again.new) == (grove.git("rev-parse", "code"), False)
    assert sorted(saved_seeds(repository.git)) == [2, 4]


def test_a_branch_at_an_earlier_update(grove: Repo) -> None:
    grove.git("branch", "-D", "code")
    made = branch(Repository(str(grove.path)), "code", Point(update=2), reset=("optimizer", "lr"))
    assert (made.step, made.new) == (2, True)
    assert "Btm-Reset: optimizer,lr" in grove.git("log", "-1", "--format=%B", "code")


def test_no_branch_without_text_or_seed(grove: Repo) -> None:
    repository = Repository(str(grove.path))
    with pytest.raises(ThetaError, match="git btm data add medical"):
        branch(repository, "medical", Point())
    with pytest.raises(UsageError, match="no name for a branch"):
        branch(repository, "a..b", Point())
    with pytest.raises(ThetaError, match="no expert"):
        branch(repository, "main", Point())


def test_text_that_came_later_comes_along(grove: Repo) -> None:
    shutil.copytree(grove.path / "data/code", grove.path / "data/medical")
    grove.commit("more text")
    branch(Repository(str(grove.path)), "medical", Point())
    assert grove.git("diff", "--name-only", "main", "medical") == ""


# -- training ----------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(grove: Repo) -> None:
    run(request(grove))
    before = grove.git("rev-parse", "code")
    assert run(request(grove)).commit == before == grove.git("rev-parse", "code")


def test_micro_batches_change_nothing_but_rounding(grove: Repo) -> None:
    run(request(grove, stop=6))
    found = btm_settings.override(btm_settings.load(str(grove.path)), {"training.micro_batch": "4"})
    grove.git("branch", "-f", "other", "code~1")
    git = Repository(str(grove.path))
    one = ModelAt(git, "code").state()
    grove.git("branch", "-f", "code", "code~1")
    run(request(grove, stop=6, settings=found))
    two = ModelAt(git, "code").state()
    assert all(torch.allclose(one[name], two[name], atol=0.02) for name in one)


def test_a_reset_schedule_begins_anew(grove: Repo) -> None:
    from git_theta_btm.btm.training.trainer import schedule

    training = btm_settings.load(str(grove.path)).training
    whole, rest = schedule(training), schedule(training, 4)
    assert [whole(done) for done in (0, 4, 8)] == [1.0, 0.5, 0.0]
    assert [rest(done) for done in (0, 2, 4)] == [1.0, 0.5, 0.0]
    warm = schedule(replace(training, warmup=0.5))
    assert [warm(done) for done in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_resets_are_kept_to(grove: Repo) -> None:
    """The optimizer's moments are gone, the update's number is not."""
    grove.git("branch", "-D", "code")
    branch(Repository(str(grove.path)), "code", Point(), reset=("dataloader", "optimizer", "lr", "meters"))
    run(request(grove, stop=6))
    state = json.loads(grove.git("show", "code:training/trainer_state.json"))
    assert [row["step"] for row in state["log_history"]] == [6]
    assert state["global_step"] == 6
    assert state["log_history"][0]["learning_rate"] == pytest.approx(0.01 * 3 / 4)


def test_a_seed_of_no_updates_and_a_dense_baseline(grove: Repo) -> None:
    """The baseline goes on from the seed: same text, same schedule. One of another mixture cannot."""
    grove.git("branch", "-m", "main", "old")
    grove.git("switch", "--quiet", "-c", "main", "old~2")
    settings = btm_settings.load(str(grove.path))
    none = run(seed_request(grove, stop=0))
    assert (none.checkpoint.step, none.checkpoint.tokens) == (0, 0)
    dense = seed_request(grove, ref="refs/heads/dense", stop=settings.training.steps, eval_splits=("legal:valid",))
    done = run(dense)
    assert (done.checkpoint.step, done.checkpoint.domain) == (8, "")
    assert done.trailers["Eval"].startswith("legal:valid=")
    assert grove.git("log", "--format=%s", "dense").split("\n") == [
        *(f"seed: step {step}" for step in (8, 6, 4, 2, 0)),
        "text",
    ]
    assert digest(grove, "dense~2") == digest(grove, "old")
    with pytest.raises(ThetaError, match="--balance equal"):
        run(replace(dense, balance="proportional"))
    with pytest.raises(ThetaError, match="the expert 'code'"):
        run(replace(dense, ref="refs/heads/code"))


# -- parts of a model --------------------------------------------------------------------------------------------------


def test_only_the_layers_that_were_asked_for_change(grove: Repo) -> None:
    run(request(grove, stop=6, part=Part(layers="1")))
    before, after = entries(grove, "main"), entries(grove, "code")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("transformer.h.1.")}
    assert "Btm-Layers: 1" in grove.git("log", "-1", "--format=%B", "code")


def test_only_feed_forward_changes(grove: Repo) -> None:
    run(request(grove, stop=6, part=Part(trainable="mlp", lr_scale=0.1)))
    before, after = entries(grove, "main"), entries(grove, "code")
    assert {name for name in before if before[name] != after[name]} == {name for name in before if ".mlp." in name}


def test_an_adapter_leaves_the_model_alone(grove: Repo) -> None:
    pytest.importorskip("peft")
    wanted = request(grove, part=Part(lora={"r": "2"}))
    assert in_a_child(lambda: run(replace(wanted, stop=6))) == 0
    run(wanted)
    assert entries(grove, "code") == entries(grove, "main")
    assert digest(grove, "code") != digest(grove, "main")  # the adapter counts
    files = grove.git("ls-tree", "-r", "--name-only", "code", "adapter").split("\n")
    assert files == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    config = json.loads(grove.git("show", "code:adapter/adapter_config.json"))
    assert config["theta_base"] == str(grove.manifest("model/model.safetensors", "main").digest)
    grove.git("switch", "--quiet", "code")
    grove.git("theta", "add", "model/model.safetensors", "--update", "low-rank", "--from", "adapter")
    assert entries(grove, "") != entries(grove, "main")


def test_without_the_state_of_the_training(grove: Repo) -> None:
    run(request(grove, optimizer=False))
    assert grove.git("ls-tree", "-r", "--name-only", "code", "training") == ""


# -- the user's tree ---------------------------------------------------------------------------------------------------


def test_a_checkout_during_a_training_is_refused_by_git(grove: Repo) -> None:
    from git_theta_btm.btm.training.workplaces import workplace

    with workplace(Repository(str(grove.path)), "refs/heads/code"):
        done = grove.run("checkout", "code", check=False)
        assert done.returncode
        assert b"already" in done.stderr
    grove.git("checkout", "--quiet", "code")


def test_a_save_starts_no_filter(grove: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One for each file of text, in each save of each of many experts, took most of a training's time."""
    from git_theta_btm.btm.training.workplaces import workplace

    repository = Repository(str(grove.path))
    grove.write("more", b'{"text": "more"}\n')
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    with workplace(repository, "refs/heads/code") as place:
        commit = line(repository, "code").add(Content({"data/code/test.jsonl": str(grove.path / "more")}), "more\n")
        monkeypatch.delenv("GIT_TRACE")
        assert grove.git("-C", place, "rev-parse", "HEAD") == grove.git("rev-parse", "code") == commit
        for path in ("data/code/test.jsonl", "data/legal/train.jsonl", "model/model.safetensors"):
            assert Path(place, path).read_bytes() == grove.run("cat-file", "blob", f"code:{path}").stdout
    trace = (tmp_path / "trace").read_text()
    assert "worktree add" in trace and "reset --hard" in trace
    assert "git-theta-filter" not in trace


def test_a_branch_that_the_user_is_on(grove: Repo) -> None:
    grove.git("switch", "--quiet", "code")
    grove.write("notes.txt", b"mine")
    run(request(grove))
    assert grove.status() == "?? notes.txt"
    assert grove.sha("model/model.safetensors")
    assert latest(Repository(str(grove.path)).git, "HEAD").checkpoint.step == 8  # type: ignore[union-attr]


def test_what_is_not_committed_stays(grove: Repo) -> None:
    """The commits wait until what is in the way is not."""
    grove.git("switch", "--quiet", "code")
    grove.write("training/trainer_state.json", b"{}")
    run(request(grove))
    assert (grove.path / "training/trainer_state.json").read_bytes() == b"{}"
    first = origin(Repository(str(grove.path)).git, "code")
    assert first and grove.git("rev-parse", "code") == first.commit
    line_ = line(Repository(str(grove.path)), "code")
    assert "refs/btm/runs/heads/code" in line_.settle()
    grove.write("btm.toml", SETTINGS.encode() + b"# more\n")
    grove.git("checkout", "training/trainer_state.json")
    assert line_.settle() == ""
    assert latest(Repository(str(grove.path)).git, "code").checkpoint.step == 8  # type: ignore[union-attr]
    assert grove.status() == " M btm.toml"


def test_commits_of_others_stay(grove: Repo) -> None:
    """A commit goes on top of what the branch is by then."""
    repository = Repository(str(grove.path))
    to = Line(repository, "refs/heads/code")
    grove.write("file", b"1")
    to.add(Content({"one.txt": str(grove.path / "file")}), "one\n")
    grove.git("switch", "--quiet", "code")
    grove.git("commit", "--quiet", "--allow-empty", "--message", "theirs")
    to.add(Content({"two.txt": str(grove.path / "file")}), "two\n")
    assert grove.git("log", "-3", "--format=%s").split("\n") == ["two", "theirs", "one"]
    assert (grove.path / "two.txt").read_bytes() == b"1"


def test_two_trainings_of_one_branch(grove: Repo) -> None:
    from git_theta_btm.btm.training.workplaces import alone

    with (
        alone(Repository(str(grove.path)), "refs/heads/code"),
        pytest.raises(ThetaError, match="another process"),
    ):
        run(request(grove))


# -- mixtures, commands, sweeps ----------------------------------------------------------------------------------------


def test_a_mixture_is_the_weighted_mean(grove: Repo) -> None:
    for domain in ("code", "legal"):
        run(request(grove, domain, stop=6))
    shutil.copytree(grove.path / "data/code", grove.path / "data/new")
    grove.commit("more text")
    repository = Repository(str(grove.path))
    made = from_mixture(repository, "new", {"code": 0.75, "legal": 0.25})
    assert (made.step, made.new) == (4, True)
    parents = grove.git("log", "-1", "--format=%P", "new").split()
    assert parents == [grove.git("rev-parse", name) for name in ("code", "legal")]
    states = [ModelAt(repository, name).state() for name in ("new", "code", "legal")]
    for name, mean in states[0].items():
        assert torch.allclose(mean, 0.75 * states[1][name] + 0.25 * states[2][name], atol=1e-6)
    assert run(request(grove, "new")).checkpoint.step == 8
    assert not from_mixture(repository, "new", {"code": 1.0}).new


def test_a_program_of_ones_own(grove: Repo) -> None:
    from git_theta_btm.btm.training.commanding import run_command

    program = grove.path / "train.py"
    program.write_text(
        "import os\nfrom safetensors.torch import load_file, save_file\n"
        "path = os.path.join(os.environ['BTM_MODEL'], 'model.safetensors')\n"
        "state = load_file(path)\nname = min(state)\n"
        "state[name] = state[name] + int(os.environ['BTM_STEPS'])\n"
        "assert b'text' in open(os.environ['BTM_TRAIN'], 'rb').read()\n"
        "save_file(state, os.path.join(os.environ['BTM_OUTPUT'], 'model.safetensors'), {'format': 'pt'})\n"
    )
    done = run_command(request(grove, command=f"{sys.executable} {program}"))
    assert (done.checkpoint.step, done.checkpoint.domain) == (8, "code")
    before, after = (ModelAt(Repository(str(grove.path)), name).state() for name in ("main", "code"))
    assert [name for name in before if not torch.equal(before[name], after[name])] == [min(before)]
    grove.git("branch", "-f", "code", "code~1")
    with pytest.raises(ThetaError, match="ended with 3"):
        run_command(request(grove, command=f"{sys.executable} -c 'raise SystemExit(3)'"))
    assert "step 8" not in grove.git("log", "-1", "--format=%s", "code")


def test_a_sweep_tries_each_layer(grove: Repo) -> None:
    from git_theta_btm.btm.training.sweeping import forget, requests, windows

    repository = Repository(str(grove.path))
    wanted = requests(repository, "code", btm_settings.load(str(grove.path)), 1, 2)
    assert [item.ref for item in wanted] == ["refs/btm/sweeps/code/0", "refs/btm/sweeps/code/1"]
    for item in wanted:
        assert loads(item.dumps()) == item
        done = run(item)
        assert done.checkpoint.step == 6
        assert float(done.trailers["Eval"].removeprefix("valid=")) < 6
        layer = item.part.layers
        before, after = entries(grove, "main"), entries(grove, item.ref)
        assert {name.split(".")[2] for name in before if before[name] != after[name]} == {layer}
    assert grove.git("branch", "--format=%(refname:short)").split() == ["code", "legal", "main"]
    assert forget(repository.git, ["code"]) == 2
    assert windows(4, 2) == ["0-1", "1-2", "2-3"]

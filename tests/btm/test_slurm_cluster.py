"""SLURM for real: jobs and trainings on a cluster of one node."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Repo
from grove import CONFIG, SETTINGS, populate
from one_node import cluster, one_node, said, until

from git_theta_btm.btm.launching.jobs import Job, launch
from git_theta_btm.btm.settings import Launch
from git_theta_btm.errors import ThetaError, UsageError

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
__all__ = ["cluster", "one_node"]


# -- jobs --------------------------------------------------------------------------------------------------------------


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, (sys.executable, "-uc", code), str(folder), str(folder / "logs" / f"{name}.log"))


def options(**more: Any) -> Launch:
    return Launch(
        launcher="slurm", jobs=2, options={"partition": "small", "cpus_per_task": 1, "timeout_min": 1, **more}
    )


def lines(log: str | Path, word: str = "") -> list[str]:
    """Lines of a log that have a word in them."""
    path = Path(log)
    return [line for line in path.read_text().splitlines() if word in line] if path.exists() else []


def number(log: str | Path) -> str:
    """The number of the job, once its program runs."""
    until(lambda: lines(log, "runs"))
    return lines(log, "SLURM job")[-1].split()[-1]


SLEEPS = "import os, time; print(f'runs {os.getpid()}'); time.sleep(90)"
SLEEPS_ONCE = "import os, time; new = not os.path.exists('x'); open('x', 'w'); print('runs'); time.sleep(90 * new)"


def test_jobs_run_and_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    threads = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['SLURM_CPUS_PER_TASK'])"
    jobs = [job(tmp_path, "a", threads), job(tmp_path, "b", "raise SystemExit(3)"), job(tmp_path, "c", "print('C')")]
    assert launch(jobs, options(cpus_per_task=2)) == [0, 3, 0]
    assert lines(jobs[0].log)[1:] == ["2 2"]
    assert lines(jobs[2].log)[1:] == ["C"]


def test_one_that_is_cancelled(tmp_path: Path) -> None:
    """Without accounting, too, the wait has an end, and the log says what became of it."""
    jobs = [job(tmp_path, "a", SLEEPS), job(tmp_path, "b", "print('B')")]
    with ThreadPoolExecutor() as pool:
        codes = pool.submit(launch, jobs, options())
        said("scancel", name := number(jobs[0].log))
        assert codes.result(90) == [1, 0]
    assert lines(jobs[0].log)[-1].startswith(f"theta: SLURM job {name} ended as CANCELLED; the same command goes on")
    assert not Path(f"/proc/{lines(jobs[0].log, 'runs')[0].split()[1]}").exists()


@pytest.mark.parametrize(
    "words",
    [("scancel", "--signal=USR2"), ("scancel", "--signal=TERM"), ("scontrol", "requeue")],
    ids=["time over", "told to make room", "put back"],
)
def test_one_that_has_to_make_room_goes_on_later(words: tuple[str, ...], tmp_path: Path) -> None:
    one = job(tmp_path, "a", SLEEPS_ONCE)
    with ThreadPoolExecutor() as pool:
        codes = pool.submit(launch, [one], options())
        name = number(one.log)
        said(*words, name)
        assert codes.result(120) == [0]
    assert lines(one.log, "SLURM job") == [f"SLURM job {name}"] * 2


def test_one_whose_time_is_over_too_often(tmp_path: Path) -> None:
    one = job(tmp_path, "a", SLEEPS)
    with ThreadPoolExecutor() as pool:
        codes = pool.submit(launch, [one], options(max_num_timeout=0))
        said("scancel", "--signal=USR2", number(one.log))
        assert codes.result(90) == [1]
    assert "ran out of time more often than slurm_max_num_timeout says" in lines(one.log)[-1]


def test_one_that_cannot_start(tmp_path: Path) -> None:
    """What SLURM said is named."""
    one = job(tmp_path, "a", "")
    assert launch([one], options(srun_args=["--chdir=/no/such", "--ntasks=99"])) == [1]
    assert "left no result: see" in lines(one.log)[-1]
    assert Path(lines(one.log)[-1].partition("see ")[2].partition(";")[0]).exists()


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"partition": "large"}, ThetaError, "SLURM took no job: .*large.*launch.options"),
        ({"partitio": "small"}, ThetaError, "submitit: .*partitio"),
        ({"timeout_min": "1"}, ThetaError, "submitit: .*timeout_min"),
        ({"tasks_per_node": 2}, UsageError, "tasks_per_node is 1"),
    ],
)
def test_what_is_refused(more: dict[str, Any], kind: type[ThetaError], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        launch([job(tmp_path, "a", "")], options(**more))


def test_an_interrupt_cancels_the_jobs(tmp_path: Path) -> None:
    jobs = [job(tmp_path, name, SLEEPS) for name in "ab"]
    program = (
        "from git_theta_btm.btm.launching.jobs import Job, launch\nfrom git_theta_btm.btm.settings import Launch\n"
        f"launch({jobs!r}, {options()!r})"
    )
    outer = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    for one in jobs:
        number(one.log)
    outer.send_signal(signal.SIGINT)
    outer.communicate(timeout=30)
    until(lambda: not said("squeue", "--noheader"))


# -- trainings ---------------------------------------------------------------------------------------------------------


def trained(repo: Repo, *words: str) -> dict[str, dict[str, Any]]:
    rows = json.loads(repo.run("btm", "train", *words, "--json", check=False).stdout)["trainings"]
    return {row["name"]: row for row in rows}


def test_experts_of_a_cluster(repo: Repo) -> None:
    """From a seed to experts; one is cancelled, one fails, and the same command makes up for both."""
    populate(repo)
    repo.write("init/config.json", json.dumps({**CONFIG, "n_layer": 1}).encode())
    launching = '[launch]\nlauncher = "slurm"\n[launch.options]\npartition = "small"\ncpus_per_task = 1\n'
    text = SETTINGS.replace("steps = 8", "steps = 42").replace("save_every = 2", "save_every = 3")
    repo.write("btm.toml", f"{text}{launching}".encode())
    repo.commit("settings")
    repo.git("btm", "seed", "train", "--set", "steps=12")
    repo.git("btm", "branch", "code", "legal")
    repo.write("program.sh", b'test "$BTM_DOMAIN" = legal\n')
    found = trained(repo, "--all", "--cmd", f"sh {repo.path / 'program.sh'}")
    assert [(row["state"], row["step"]) for row in found.values()] == [("failed", 6), ("trained", 42)]
    assert "the command ended with 1" in found["code"]["problem"]
    log = Path(found["code"]["log"])
    log.unlink()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(trained, repo, "--all")
        until(lambda: "Btm-Step: 9" in repo.git("log", "--format=%B", "code"), 120)
        status = json.loads(repo.git("btm", "status", "--json"))["experts"]
        said("scancel", lines(log, "SLURM job")[0].split()[-1])
        found = running.result(120)
    assert [(row["branch"], row["running"]) for row in status] == [("code", True), ("legal", False)]
    assert (found["code"]["state"], found["legal"]["state"]) == ("failed", "done")
    assert "ended as CANCELLED" in found["code"]["problem"]
    assert 9 <= found["code"]["step"] < 42
    found = trained(repo, "--all")
    assert (found["code"]["state"], found["code"]["step"], found["legal"]["state"]) == ("trained", 42, "done")
    assert repo.git("worktree", "list").count("\n") == 0
    assert repo.status() == "?? program.sh"

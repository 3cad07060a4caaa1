"""Launchers: real processes, real torchrun, submitit's own executor of local jobs, a real cluster of Ray's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from git_theta_btm.btm.launching.jobs import Job, launch
from git_theta_btm.btm.launching.processes import pool, python
from git_theta_btm.btm.settings import Launch
from git_theta_btm.errors import ThetaError, UsageError


def job(folder: Path, name: str, code: str, **environment: str) -> Job:
    return Job(name, (sys.executable, "-c", code), str(folder), str(folder / "logs" / f"{name}.log"), environment)


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "a", "print('A')"),
        job(tmp_path, "b", "raise SystemExit(3)"),
        Job("c", ("/no/such/program",), str(tmp_path), str(tmp_path / "logs/c.log")),
        job(tmp_path, "d", "import os; print(os.environ['WORD'])", WORD="said"),
    ]
    assert launch(jobs, Launch(jobs=2)) == [0, 3, 127, 0]
    assert (tmp_path / "logs/a.log").read_text() == "A\n"
    assert "No such file" in (tmp_path / "logs/c.log").read_text()
    assert (tmp_path / "logs/d.log").read_text() == "said\n"


def test_no_more_run_than_were_asked_for(tmp_path: Path) -> None:
    code = "import os, time; a = time.time(); time.sleep(.3); print(a, time.time())"
    jobs = [job(tmp_path, str(number), code) for number in range(5)]
    assert pool(jobs, 2) == [0] * 5
    spans = [tuple(map(float, (tmp_path / f"logs/{number}.log").read_text().split())) for number in range(5)]
    assert max(sum(start <= when < end for start, end in spans) for when, _ in spans) <= 2


def test_threads_are_dealt_out(tmp_path: Path) -> None:
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    assert pool([job(tmp_path, "a", code, OMP_NUM_THREADS="7")], 1) == [0]
    assert (tmp_path / "logs/a.log").read_text() == "7\n"


def test_an_interrupt_ends_the_jobs_and_their_children(tmp_path: Path) -> None:
    """Ctrl-C: the job's own child, too, is gone."""
    child = "import os, subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    program = f"""
from git_theta_btm.btm.launching.processes import pool
from git_theta_btm.btm.launching.jobs import Job
import sys
pool([Job("a", (sys.executable, "-c", {child!r}), {str(tmp_path)!r}, {str(tmp_path / "a.log")!r})], 1)
"""
    outer = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    log = tmp_path / "a.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    outer.send_signal(signal.SIGINT)
    outer.communicate(timeout=30)
    number = int(log.read_text())
    deadline = time.monotonic() + 10
    while alive(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(number)


def alive(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"  # a zombie that nobody waits for is gone
    except FileNotFoundError:
        return False


def test_an_unknown_launcher(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="local, torchrun, slurm, ray"):
        launch([job(tmp_path, "a", "")], Launch(launcher="mesos"))


def module(folder: Path, name: str, code: str) -> Job:
    (folder / "worker.py").write_text(code)
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    return Job(name, python("worker", "word"), str(folder), str(folder / f"{name}.log"), environment)


def test_torchrun_starts_as_many_processes(tmp_path: Path) -> None:
    code = "import os, sys; print(f\"{os.environ['RANK']}/{os.environ['WORLD_SIZE']} {sys.argv[1]}\\n\", end='')"
    assert launch([module(tmp_path, "a", code)], Launch(launcher="torchrun", processes=2)) == [0]
    lines = (tmp_path / "a.log").read_text().split("\n")
    assert {"0/2 word", "1/2 word"} <= set(lines)


def test_torchrun_runs_modules_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="modules of Python"):
        launch([job(tmp_path, "a", "")], Launch(launcher="torchrun", processes=2))


def test_submitit_runs_the_same_jobs(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    jobs = [job(tmp_path, "a", "print('A')"), job(tmp_path, "b", "raise SystemExit(3)")]
    options = {"cluster": "local", "timeout_min": 1}
    assert launch(jobs, Launch(launcher="slurm", options=options)) == [0, 3]
    assert (tmp_path / "logs/a.log").read_text() == "A\n"


def test_no_slurm_here(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    if any(os.access(os.path.join(folder, "srun"), os.X_OK) for folder in os.get_exec_path()):
        pytest.skip("there is a SLURM here")
    with pytest.raises(ThetaError, match="submitit"):
        launch([job(tmp_path, "a", "")], Launch(launcher="slurm"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_runs_the_same_jobs(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    jobs = [job(tmp_path, "a", "print('A')"), job(tmp_path, "b", "raise SystemExit(3)")]
    assert launch(jobs, Launch(launcher="ray", jobs=2)) == [0, 3]
    assert (tmp_path / "logs/a.log").read_text() == "A\n"

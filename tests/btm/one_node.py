"""One node: a cluster of SLURM, of Debian's packages, that lives in a directory and ends with the tests that use it."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
# No cgroups, no accounting: what a container allows. More CPUs than there may be, so that two jobs run at a time; a
# job that is put back waits for cred_expire, two minutes if that is under five seconds.
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=5
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=small Nodes=one Default=YES MaxTime=INFINITE State=UP
"""


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    """What is found at last; the test fails if nothing is."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


def said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout.strip()


def programs() -> dict[str, str]:
    """Where SLURM's programs are; the tests are skipped if one is missing."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=path) for name in (*DAEMONS, *CLIENTS)}
    if missing := [name for name, place in found.items() if not place]:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install slurmctld slurmd slurm-client munge)")
    return {name: str(place) for name, place in found.items()}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def configure(folder: Path) -> None:
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    ports = {"controller": free_port(), "node": free_port()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, user=user, **ports))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def start(folder: Path, found: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The three daemons in the foreground, one after another."""
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = {
        "munged": ["--foreground", "--force", *munge, f"--socket={folder}/munge.socket"],
        "slurmctld": ["-D", "-c", "-f", f"{folder}/slurm.conf"],
        "slurmd": ["-D", "-N", "one", "-f", f"{folder}/slurm.conf"],
    }
    environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    for name, options in commands.items():
        with open(folder / f"{name}.out", "wb") as output:
            yield subprocess.Popen(
                [found[name], *options],
                cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        time.sleep(0.5)


def ready(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> bool:
    """Wait until the node is idle."""
    deadline = time.monotonic() + 30
    environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}
    words = ["sinfo", "--noheader", "--format=%T"]
    while time.monotonic() < deadline and not any(daemon.poll() is not None for daemon in daemons):
        if subprocess.run(words, env=environment, capture_output=True, check=False).stdout.strip() == b"idle":
            return True
        time.sleep(0.2)
    return False


def belonging(folder: Path) -> list[int]:
    """All processes of the cluster and of its jobs: their environment names its directory."""
    mark, found = f"SLURM_CONF={folder}/".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue  # gone, or somebody else's
    return found


def stop(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> None:
    """End the daemons, the node first, and whatever is left of jobs."""
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    for process in belonging(folder):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    until(lambda: not belonging(folder))


@pytest.fixture(scope="module")
def one_node() -> Iterator[Path]:
    """The directory of a cluster that runs. A short one: a socket's path has at most 107 bytes."""
    found = programs()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)  # munged wants its socket to be reached by all
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        configure(folder)
        daemons.extend(start(folder, found))
        if not ready(folder, daemons):
            tails = [text[-300:] for name in DAEMONS for text in [(folder / f"{name}.out").read_text(errors="replace")]]
            pytest.skip(f"SLURM does not start here: {' '.join(' '.join(tails).split())}")
        yield folder
    finally:
        stop(folder, daemons)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(one_node: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cluster, which commands of the test find; no job outlives the test."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "OMP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", str(one_node / "slurm.conf"))
    yield one_node
    said("scancel", "--user", getpass.getuser())
    until(lambda: not said("squeue", "--noheader"))

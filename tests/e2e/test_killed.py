"""kill -9, full disks and other people's writes: what was committed stays readable, and no half object has a name."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

KILLS = 10
SIZE = 30  # megabytes


def model(seed: int) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(seed)
    state = {f"h.{index}": numbers.standard_normal(SIZE * 25_000, dtype="f4") for index in range(10)}
    return state | {f"b.{index}": numbers.standard_normal(100, dtype="f4") for index in range(10)}


def killed_after(repo: Repo, seconds: float, *command: str) -> bool:
    """Run git, and kill it and all its children after a while; whether it was still running."""
    process = subprocess.Popen(
        ["git", *command], cwd=repo.path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def unlock(repo: Repo) -> None:
    (repo.path / ".git" / "index.lock").unlink(missing_ok=True)


def check_objects(repo: Repo) -> None:
    """Every object is whole: its name is the SHA-256 of its bytes."""
    for oid in repo.store:
        assert sha256(Path(repo.store.path(oid)).read_bytes()).hexdigest() == oid


def test_add_is_killed(repo: Repo) -> None:
    sha = repo.write("m.safetensors", model(0))
    started = time.perf_counter()
    repo.commit()
    duration = time.perf_counter() - started
    chance = random.Random(0)
    kills = 0
    for seed in range(1, KILLS + 1):
        repo.write("m.safetensors", model(seed))
        kills += killed_after(repo, chance.uniform(0, duration), "add", "m.safetensors")
        unlock(repo)
        check_objects(repo)
    assert kills > KILLS // 3
    assert repo.status()[3:] == "m.safetensors"
    repo.git("reset", "--quiet", "--hard")
    assert repo.sha("m.safetensors") == sha
    last = repo.write("m.safetensors", model(KILLS))
    repo.commit()
    repo.git("checkout", "--quiet", "HEAD~")
    repo.git("checkout", "--quiet", "main")
    assert repo.sha("m.safetensors") == last
    assert repo.status() == ""


def test_checkout_is_killed(repo: Repo) -> None:
    shas = {"seed": repo.write("m.safetensors", model(0))}
    repo.commit()
    repo.git("branch", "seed")
    shas["main"] = repo.write("m.safetensors", model(1))
    repo.commit()
    started = time.perf_counter()
    repo.git("checkout", "--quiet", "seed")
    duration = time.perf_counter() - started
    chance = random.Random(0)
    kills = 0
    for _ in range(KILLS):
        kills += killed_after(repo, chance.uniform(0, duration), "checkout", "--quiet", "main")
        unlock(repo)
        for branch in ("main", "seed"):
            repo.git("checkout", "--quiet", "--force", branch)
            assert repo.sha("m.safetensors") == shas[branch]
            assert repo.status() == ""
    assert kills > KILLS // 3
    check_objects(repo)


def test_two_adds_at_once(repo: Repo, tmp_path: Path) -> None:
    """Two worktrees of one repository add the same new model at the same time."""
    repo.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    sha = repo.write("m.safetensors", model(3))
    assert linked.write("m.safetensors", model(3)) == sha
    running = [subprocess.Popen(["git", "add", "m.safetensors"], cwd=one.path) for one in (repo, linked)]
    assert [process.wait() for process in running] == [0, 0]
    assert repo.blob("m.safetensors") == linked.blob("m.safetensors")
    check_objects(repo)
    assert list((repo.theta / "tmp").iterdir()) == []
    for one in (repo, linked):
        one.git("commit", "--quiet", "--message", "the same")
        (one.path / "m.safetensors").unlink()
        one.git("checkout", "--quiet", "m.safetensors")
        assert one.sha("m.safetensors") == sha


# -- disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_small_disk(template: Path, small_disk: Path) -> Repo:
    return Repo(Path(shutil.copytree(template, small_disk / "repo", symlinks=True)))


def test_a_full_disk(on_small_disk: Repo) -> None:
    repo = on_small_disk
    sha = repo.write("small.dat", os.urandom(100_000))
    head = repo.commit()
    repo.write("large.dat", os.urandom(2_500_000))
    done = repo.run("add", "large.dat", check=False)
    assert done.returncode != 0
    ours = [line for line in done.stderr.decode().splitlines() if "theta: " in line]
    assert len(ours) == 1
    assert ours[0].startswith("theta: large.dat: No space left on device")
    assert b"Traceback" not in done.stderr
    assert repo.git("rev-parse", "HEAD") == head
    assert repo.status() == "?? large.dat"
    check_objects(repo)
    (repo.path / "large.dat").unlink()
    (repo.path / "small.dat").unlink()
    repo.git("checkout", "--quiet", "small.dat")
    assert repo.sha("small.dat") == sha
    repo.write("medium.dat", os.urandom(500_000))
    repo.commit()
    assert repo.status() == ""


def test_a_disk_that_cannot_be_written(on_small_disk: Repo, small_disk: Path) -> None:
    """Looking at a repository needs no right to change it."""
    repo = on_small_disk
    state = {f"h.{index}": np.full(20_000, index, "f4") for index in range(3)} | {"b": np.ones(3)}
    repo.write("m.safetensors", state)
    repo.write("x.dat", b"some bytes" * 10_000)
    repo.commit()
    (repo.path / "m.safetensors").touch()
    (repo.path / "x.dat").touch()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for _ in range(2):
        done = repo.run("status", "--porcelain")
        assert (done.stdout, done.stderr) == (b"", b"")
    assert repo.git("diff", "--stat") == ""
    assert repo.run("cat-file", "--filters", "HEAD:x.dat").stdout == b"some bytes" * 10_000
    assert repo.run("add", ".", check=False).returncode != 0


def test_an_object_that_rots(repo: Repo) -> None:
    sha = repo.write("m.safetensors", {f"h.{index}": np.full(20_000, index, "f4") for index in range(3)})
    repo.commit()
    entry = repo.manifest("m.safetensors").entries[2]
    oid = next(
        oid for oid in repo.store if oid == entry.digest or entry.digest in str(repo.manifest("m.safetensors").objects)
    )
    path = Path(repo.store.path(oid))
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (repo.path / "m.safetensors").unlink()
    done = repo.run("checkout", "--quiet", "m.safetensors")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "m.safetensors" in lines[0]
    assert oid in lines[0]
    assert (repo.path / "m.safetensors").read_bytes() == repo.blob("m.safetensors")
    assert repo.status() == ""
    path.write_bytes(good)
    (repo.path / "m.safetensors").unlink()
    repo.git("checkout", "--quiet", "m.safetensors")
    assert repo.sha("m.safetensors") == sha

"""Pruning while others work, killed, and between all of git's own steps: nothing that git can reach is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import Repo

from git_theta_btm.manifest import Digest

NAME = "m.safetensors"
OLD = time.time() - 30 * 24 * 3600
# One process that prunes again and again, as fast as it can, what is older than its first argument in seconds.
PRUNER = """
import sys, time
from contextlib import suppress
from git_theta_btm.care.pruning import Options, prune
from git_theta_btm.errors import ThetaError
from git_theta_btm.repository import Repository
removed = 0
print("ready", flush=True)
while time.time() < float(sys.argv[2]):
    with suppress(ThetaError):  # it refuses to remove anything while git prunes the very blobs that it reads
        removed += len(prune(Repository(), Options(time.time() - float(sys.argv[1]))).removed)
    time.sleep(0.01)
print(removed)
"""


def model(seed: int, megabytes: float = 0.4) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(seed)
    return {f"h.{index}": numbers.standard_normal(int(megabytes * 25_000), dtype="f4") for index in range(10)}


def age(repo: Repo) -> None:
    for oid in repo.store:
        os.utime(repo.store.path(oid), (OLD, OLD))


def problems(repo: Repo) -> list[object]:
    return list(json.loads(repo.run("theta", "fsck", "--json", check=False).stdout)["problems"])


def test_the_command(repo: Repo) -> None:
    repo.write(NAME, model(1))
    repo.commit()
    kept = repo.objects()
    repo.write(NAME, model(2))
    repo.git("add", ".")
    repo.git("reset", "--quiet", "--hard")
    spare = repo.objects().keys() - kept.keys()
    age(repo)
    repo.git("prune", "--expire=now")
    assert json.loads(repo.git("theta", "prune", "-n", "--expire=now", "--json")) == {
        "version": 1,
        "removed": [{"object": oid, "size": repo.objects()[oid]} for oid in sorted(spare)],
        "needed": len(kept),
        "young": 0,
    }
    assert repo.objects().keys() == kept.keys() | spare
    assert repo.run("theta", "prune").stderr.endswith(b"kept\n")
    done = repo.run("theta", "prune", "--verbose", "--expire=now")
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == sorted(spare)
    assert done.stderr.decode() == f"{len(spare)} objects (390.6 KiB) removed; {len(kept)} kept\n"
    assert repo.objects() == kept
    assert problems(repo) == []


@pytest.mark.parametrize("words", ["garbage", ""])
def test_a_time_that_is_none(repo: Repo, words: str) -> None:
    done = repo.run("theta", "prune", "--expire", words, check=False)
    assert done.returncode == 129
    assert b"is no time" in done.stderr


def test_never_removes_nothing(repo: Repo) -> None:
    repo.write(NAME, model(1))
    repo.git("add", ".")
    repo.git("rm", "--quiet", "-f", NAME)
    repo.git("prune", "--expire=now")
    age(repo)
    repo.git("theta", "prune", "--expire=never")
    assert repo.objects()


# -- between git's own steps -----------------------------------------------------------------------------------------


class Careless:
    """git, with everything pruned before each of its steps."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo

    def __call__(self, *arguments: str) -> None:
        age(self.repo)
        self.repo.git("gc", "--quiet", "--prune=now")
        self.repo.run("lfs", "prune", "--force", "--recent", check=False)  # it finds nothing of ours to remove
        self.repo.git("theta", "prune", "--expire=now")
        self.repo.run(*arguments, check=False)


def test_pruned_between_any_two_steps(repo: Repo, tmp_path: Path) -> None:
    git = Careless(repo)
    repo.git("config", "gc.reflogExpire", "never")  # the tests' commits are of 2024
    repo.git("config", "gc.reflogExpireUnreachable", "never")
    shas = {"one": repo.write(NAME, model(1))}
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    shas["stashed"] = repo.write(NAME, model(2))
    git("stash", "--quiet")
    git("switch", "--quiet", "-c", "side")
    shas["side"] = repo.write(NAME, model(3))
    git("commit", "--quiet", "-a", "-m", "side")
    shas["amended"] = repo.write(NAME, model(4))
    git("commit", "--quiet", "-a", "--amend", "-m", "amended")
    git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    shas["linked"] = linked.write(NAME, model(5))
    linked.git("add", ".")
    git("switch", "--quiet", "main")
    shas["ours"] = repo.write(NAME, model(6))
    git("commit", "--quiet", "-a", "-m", "ours")
    git("-c", "merge.theta.driver=false", "merge", "side")
    conflict = {stage: repo.git("rev-parse", f":{stage}:{NAME}") for stage in (1, 2, 3)}
    git("merge", "--abort")
    git("status")
    found = {
        "one": "main~1", "stashed": "stash@{0}", "side": "side@{1}", "amended": "side", "ours": "main",
    }  # fmt: skip
    for name, revision in found.items():
        repo.git("checkout", "--quiet", "--detach", "--force", revision)
        assert repo.sha(NAME) == shas[name]
    assert all(repo.run("cat-file", "-e", oid, check=False).returncode == 0 for oid in conflict.values())
    linked.git("checkout", "--quiet", "--force", NAME)
    assert linked.sha(NAME) == shas["linked"]
    assert problems(repo) == []


# -- local copies ----------------------------------------------------------------------------------------------------


def test_local_copies(repo: Repo, tmp_path: Path) -> None:
    """Only what the remote confirms to have goes, and comes back when it is needed."""
    assert b"no remote" in repo.run("theta", "prune", "--local-copies", check=False).stderr
    repo.git("init", "--quiet", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", (tmp_path / "remote.git").as_uri())
    sha = repo.write(NAME, model(1))
    repo.commit()
    old = repo.objects()
    now = repo.write(NAME, model(2))
    repo.commit()
    repo.git("push", "--quiet", "origin", "main")
    repo.write(NAME, model(3))
    head = repo.commit("not pushed")
    unpushed = {blob.digest for blob in repo.manifest(NAME).needs()}
    repo.git("switch", "--quiet", "--detach", "HEAD~1")
    lost = next(oid for oid in (tmp_path / "remote.git/lfs/objects").rglob("?" * 64) if oid.name in old)
    lost.unlink()
    connection = sqlite3.connect(repo.theta / "catalogue.sqlite3", isolation_level=None)
    connection.execute("UPDATE manifest SET used = 0")  # all of it was done long ago
    connection.close()
    os.utime(repo.path / NAME, (OLD, OLD))
    going = {oid for oid in old if oid not in {*unpushed, lost.name, *map(str, needed(repo))}}
    dry = json.loads(repo.git("theta", "prune", "--local-copies", "--dry-run", "--json"))
    assert {item["object"] for item in dry["removed"]} == going
    before = repo.objects()
    repo.git("theta", "prune", "--local-copies")
    assert before.keys() - repo.objects().keys() == going
    assert repo.sha(NAME) == now
    assert repo.status() == ""
    shutil.rmtree(repo.path / ".git/lfs", ignore_errors=True)
    repo.git("checkout", "--quiet", head)
    assert going
    (tmp_path / "remote.git/lfs/objects" / lost.name[:2] / lost.name[2:4]).mkdir(parents=True, exist_ok=True)
    shutil.copy(repo.store.path(Digest(lost.name)), lost)
    repo.git("checkout", "--quiet", "HEAD~2")
    assert repo.sha(NAME) == sha
    assert problems(repo) == []


def test_local_copies_that_were_in_use_of_late(repo: Repo, tmp_path: Path) -> None:
    repo.git("init", "--quiet", "--bare", str(tmp_path / "remote.git"))
    repo.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    repo.write(NAME, model(1))
    repo.commit()
    repo.write(NAME, model(2))
    repo.commit()
    repo.git("push", "--quiet", "origin", "main")
    now = {str(oid) for oid in needed(repo)}
    old = repo.objects().keys() - now
    report = json.loads(repo.git("theta", "prune", "--local-copies", "--json"))
    assert report == {"version": 1, "removed": [], "needed": len(now), "young": len(old)}
    assert repo.run("theta", "prune", "--local-copies").stderr.decode().endswith(f"{len(old)} too young to tell\n")
    report = json.loads(repo.git("theta", "prune", "--local-copies", "--expire=now", "--json"))
    assert {item["object"] for item in report["removed"]} == old
    assert (report["needed"], report["young"]) == (len(now), 0)
    assert repo.objects().keys() == now and repo.status() == ""


def needed(repo: Repo) -> set[Digest]:
    return {blob.digest for blob in repo.manifest(NAME, "HEAD").needs()}


# -- at the same time ------------------------------------------------------------------------------------------------


@contextmanager
def pruner(repo: Repo, age_limit: float, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, "-c", PRUNER, str(age_limit), str(time.time() + seconds)]
    with subprocess.Popen(arguments, cwd=repo.path, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_adds_that_find_what_is_being_removed(repo: Repo) -> None:
    """A few versions are added again and again, and forgotten by git each time: what one add leaves behind, the next
    one recognises, and the pruner removes in between."""
    chance = random.Random(0)
    models = [model(seed, megabytes=8) for seed in range(3)]
    checked = 0
    with pruner(repo, age_limit=0.5, seconds=5) as process:
        while process.poll() is None:
            repo.write(NAME, models[checked % 3])
            repo.git("add", NAME)
            assert [blob for blob in repo.manifest(NAME).needs() if repo.store.size(blob.digest) != blob.size] == []
            time.sleep(0.05)
            assert [blob for blob in repo.manifest(NAME).needs() if repo.store.size(blob.digest) != blob.size] == []
            repo.git("rm", "--quiet", "--cached", NAME)
            repo.git("prune", "--expire=now")
            age(repo)
            time.sleep(chance.uniform(0, 0.2))
            checked += 1
        assert process.stdout
        assert int(process.stdout.read()) > 0
    assert checked > 3
    repo.git("add", NAME)
    assert problems(repo) == []


def test_an_add_that_takes_its_time(repo: Repo) -> None:
    """It has seen objects that nobody needs, and is going to name them."""
    repo.write(NAME, model(1))
    repo.git("add", NAME)
    kept = repo.objects()
    repo.git("rm", "--quiet", "--cached", NAME)
    repo.git("prune", "--expire=now")
    age(repo)
    content = (repo.path / NAME).read_bytes()
    (repo.path / NAME).unlink()
    command = ["git-theta-filter", "clean", "--", NAME]
    with subprocess.Popen(command, cwd=repo.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clean:
        assert clean.stdin
        clean.stdin.write(content[:-1])
        clean.stdin.flush()
        with pruner(repo, age_limit=0, seconds=60) as process:
            time.sleep(0.5)
            assert repo.objects() == kept
            process.kill()
        text, _ = clean.communicate(content[-1:])
    assert clean.returncode == 0
    repo.run("hash-object", "-w", "--stdin", stdin=text)
    repo.git("theta", "prune", "--expire=now")
    assert repo.objects() == kept


def test_it_is_killed(repo: Repo) -> None:
    sha = repo.write(NAME, model(0))
    repo.commit()
    kept = repo.objects()
    for seed in range(1, 9):
        repo.write(f"{seed}.safetensors", model(seed))
    repo.git("add", ".")
    repo.git("reset", "--quiet", "--hard")
    repo.git("prune", "--expire=now")
    age(repo)
    chance = random.Random(0)
    for _ in range(3):
        with pruner(repo, age_limit=0, seconds=50):
            time.sleep(chance.uniform(0, 0.2))
        assert kept.items() <= repo.objects().items()
        assert repo.status() == ""
    repo.git("theta", "prune", "--expire=now")
    assert repo.objects() == kept
    assert problems(repo) == []
    (repo.path / NAME).unlink()
    repo.git("checkout", "--quiet", NAME)
    assert repo.sha(NAME) == sha

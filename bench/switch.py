"""Switching branches: ``git theta switch`` beside git-lfs's ``git checkout`` and ``cp``, and many branches.

    python bench/switch.py                  # 1 GiB, three runs, then 64 branches; about ten minutes and 12 GiB of disk
    python bench/switch.py --mib 256 --runs 1 --branches 8

Prints Markdown tables of medians. The runs of the tools alternate, so that a slow moment of the machine falls on all of
them; before each, ``git status`` has settled the index and the disk is idle. Nothing outside the temporary directory
is touched; git's own configuration is sealed off.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from core import FILTERS, TENSORS, new_repository, same, timed, version, write_model
from safetensors.numpy import save_file

PAIRS = {"2 % of the tensors differ": (3, 0.2), "everything differs": (TENSORS, 0.5)}  # tensors, target in LFS's time
MODEL = 50  # megabytes of each of many branches
PARTS = 50  # tensors in it; each branch changes a tenth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the experts (1024)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool, there and back (3)")
    parser.add_argument("--branches", type=int, default=64, help="branches of a model of 50 MB (64)")
    parser.add_argument("--directory", type=Path, help="where to work (the system's temporary directory)")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {version('git')}, ", end=""
    )
    print(f"{version('git-lfs')}; {options.mib} MiB, {TENSORS} tensors, median of {2 * options.runs} switches\n")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        many(Path(directory), options.branches)
    print("| | git theta switch | its first status | git-lfs | cp | ratio to git-lfs | target |")
    print("|---|---|---|---|---|---|---|")
    for label, (changed, target) in PAIRS.items():
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            times = pair(Path(directory), options.mib << 20, changed, options.runs)
        ours, status, lfs, copy = (statistics.median(times[key]) for key in ("theta", "status", "lfs", "cp"))
        verdict = f"{target}: {'held' if ours <= target * lfs else 'missed'}"
        print(
            f"| {label} | {ours:.2f} s | {status:.2f} s | {lfs:.2f} s | {copy:.2f} s | {ours / lfs:.2f} | {verdict} |"
        )
    print(flush=True)


def pair(directory: Path, size: int, changed: int, runs: int) -> dict[str, list[float]]:
    """Seconds of each switch between two experts, by tool."""
    experts = {name: directory / f"{name}.safetensors" for name in ("legal", "medical")}
    for name, count in (("legal", 0), ("medical", changed)):
        write_model(experts[name], "F32", size, changed=count)
    repositories = {tool: experts_in(directory / tool, tool, experts) for tool in FILTERS}
    commands = {"theta": ("theta", "switch"), "lfs": ("checkout", "-q")}
    times: dict[str, list[float]] = defaultdict(list)
    for name in list(experts) * runs:
        for tool, git in repositories.items():
            git("status")
            os.sync()
            times[tool].append(timed(lambda git=git, tool=tool, name=name: git(*commands[tool], name)))
            if tool == "theta":
                times["status"].append(timed(lambda git=git: git("status")))
            if not same(directory / tool / "model.safetensors", experts[name]):
                raise SystemExit(f"{tool}: the file is not what was committed")
        os.sync()
        times["cp"].append(timed(lambda name=name: shutil.copyfile(experts[name], directory / "copy")))
    return times


def experts_in(repository: Path, tool: str, experts: dict[str, Path]) -> Callable[..., None]:
    """A repository with a branch for each expert, on the last one's."""
    git = new_repository(repository, tool, FILTERS[tool])
    for name, file in experts.items():
        git("checkout", "-qb", name)
        shutil.copyfile(file, repository / "model.safetensors")
        git("add", "model.safetensors")
        git("commit", "-qm", name)
    git("status")
    return git


def many(directory: Path, branches: int) -> None:
    """Push, clone and switch through many branches: the second half should cost what the first did."""
    numbers = np.random.default_rng(0)
    state = {f"h.{part}": numbers.standard_normal(MODEL * 250_000 // PARTS, np.float32) for part in range(PARTS)}
    remote, clone = directory / "remote.git", directory / "clone"
    git = new_repository(directory / "origin", "theta", FILTERS["theta"])
    for branch in range(branches):
        git("checkout", "-q", "-b", f"expert-{branch}", "main")
        picked = [f"h.{part}" for part in numbers.permutation(PARTS)[: PARTS // 10]]
        changed = {name: state[name] + numbers.standard_normal(len(state[name]), np.float32) * 1e-3 for name in picked}
        save_file(state | changed, directory / "origin" / "model.safetensors")
        git("add", "model.safetensors")
        git("commit", "-qm", "an expert")
    git("init", "-q", "--bare", str(remote))
    git("remote", "add", "origin", str(remote))
    push = timed(lambda: (git("push", "-q", "--all"), git("theta", "push", "--all", "origin")))
    cloning = timed(lambda: git("theta", "clone", "-q", str(remote), str(clone), "-b", "expert-0"))
    rounds = []
    for _ in range(2):  # objects are fetched in the first, and are here in the second
        rounds.append(
            [timed(lambda b=b: git("-C", str(clone), "theta", "switch", f"expert-{b}")) for b in range(branches)]
        )
    dirty = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, check=True).stdout
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"| {branches} branches of {MODEL} MB | seconds |\n|---|---|")
    print(f"| push | {push:.1f} |\n| clone | {cloning:.1f} |")
    for label, seconds in zip(("with fetch", "all objects here"), rounds, strict=True):
        halves = [statistics.median(half) for half in (seconds[: branches // 2], seconds[branches // 2 :])]
        print(f"| a switch, {label}: first half, second half | {halves[0]:.2f}, {halves[1]:.2f} |")
    print(f"| peak memory of any process, MiB | {peak:.0f} |\n| dirty files afterwards | {len(dirty.split())} |")


if __name__ == "__main__":
    main()

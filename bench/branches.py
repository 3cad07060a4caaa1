"""Many experts: 64 branches of one model are pushed, cloned and switched through.

    python bench/branches.py                # 16, 32 and 64 branches of 50 MB; about ten minutes and 3 GiB of disk
    python bench/branches.py --branches 4 8

Prints a Markdown table: what each branch costs should not depend on how many there are, and memory should not either.
Each branch changes a tenth of the tensors. The remote is a bare repository on the same disk. Nothing outside the
temporary directory is touched.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from core import FILTERS, compiled, new_repository, timed, version
from safetensors.numpy import save_file

MODEL = 50  # megabytes
PARTS = 50  # tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=int, nargs="+", default=[16, 32, 64], help="how many (16 32 64)")
    parser.add_argument("--directory", type=Path, help="where to work (the system's temporary directory)")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    compiled()
    if options.row:
        row(options.branches[0], options.directory)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"{version('git')}, {version('git-lfs')}; {MODEL} MB, seconds in all and of each branch\n")
    print("| branches | push | clone | switch, with fetch | switch, all here | largest process | dirty files |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for branches in options.branches:  # each in a process of its own, for the memory of its children alone
        here = ["--directory", str(options.directory)] if options.directory else []
        subprocess.run([sys.executable, __file__, "--row", "--branches", str(branches), *here], check=True)


def row(branches: int, parent: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        remote, clone = Path(directory, "remote.git"), Path(directory, "clone")
        git = experts(Path(directory, "origin"), branches)
        git("init", "-q", "--bare", str(remote))
        git("remote", "add", "origin", str(remote))
        seconds = {"push": timed(lambda: (git("push", "-q", "--all"), git("theta", "push", "--all", "origin")))}
        cloning = timed(lambda: git("theta", "clone", "-q", str(remote), str(clone), "-b", "expert-0"))
        for label in ("with fetch", "all here"):  # objects are fetched in the first round, and are here in the second
            seconds[label] = timed(lambda: through(git, clone, branches))
        dirty = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, check=True).stdout
    shown = {label: f"{total:.1f} ({total / branches:.2f})" for label, total in seconds.items()}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"| {branches} | {shown['push']} | {cloning:.1f} | {shown['with fetch']} | {shown['all here']} ", end="")
    print(f"| {peak:.0f} MiB | {len(dirty.split())} |", flush=True)


def experts(repository: Path, branches: int) -> Callable[..., None]:
    """A repository with so many branches of one model."""
    numbers = np.random.default_rng(0)
    state = {f"h.{part}": numbers.standard_normal(MODEL * 250_000 // PARTS, np.float32) for part in range(PARTS)}
    git = new_repository(repository, "theta", FILTERS["theta"])
    for branch in range(branches):
        git("checkout", "-q", "-b", f"expert-{branch}", "main")
        picked = [f"h.{part}" for part in numbers.permutation(PARTS)[: PARTS // 10]]
        changed = {name: state[name] + numbers.standard_normal(len(state[name]), np.float32) * 1e-3 for name in picked}
        save_file(state | changed, repository / "model.safetensors")
        git("add", "model.safetensors")
        git("commit", "-qm", "an expert")
    return git


def through(git: Callable[..., None], clone: Path, branches: int) -> None:
    for branch in range(branches):
        git("-C", str(clone), "theta", "switch", f"expert-{branch}")


if __name__ == "__main__":
    main()

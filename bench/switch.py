"""Switching branches: ``git theta switch`` beside git-lfs's ``git checkout`` and ``cp``.

    python bench/switch.py                  # 1 GiB, three runs; about five minutes and 12 GiB of disk
    python bench/switch.py --mib 256 --runs 1

Prints a Markdown table of medians: wall time and, since that says little on a machine with other work, processor time
of all processes. The runs of the tools alternate, so that a slow moment of the machine falls on all of
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
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from core import FILTERS, TENSORS, compiled, new_repository, same, timed, version, write_model

PAIRS = {"2 % of the tensors differ": (3, 0.2), "everything differs": (TENSORS, 0.5)}  # tensors, target in LFS's time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the experts (1024)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool, there and back (3)")
    parser.add_argument("--directory", type=Path, help="where to work (the system's temporary directory)")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {version('git')}, ", end=""
    )
    print(f"{version('git-lfs')}; {options.mib} MiB, {TENSORS} tensors, median of {2 * options.runs} switches\n")
    compiled()
    print(
        "| | git theta switch | its first status | git-lfs | cp | ratio | target | processor: ours | git-lfs | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for label, (changed, target) in PAIRS.items():
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            times = pair(Path(directory), options.mib << 20, changed, options.runs)
        ours, status, lfs, copy = (statistics.median(times[key]) for key in ("theta", "status", "lfs", "cp"))
        busy = [statistics.median(times[key]) for key in ("theta cpu", "lfs cpu")]
        verdict = f"{target}: {'held' if ours <= target * lfs else 'missed'}"
        print(
            f"| {label} | {ours:.2f} s | {status:.2f} s | {lfs:.2f} s | {copy:.2f} s | {ours / lfs:.2f} | {verdict} "
            f"| {busy[0]:.2f} s | {busy[1]:.2f} s | {busy[0] / busy[1]:.2f} |",
            flush=True,
        )


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
            before = processor()
            times[tool].append(timed(lambda git=git, tool=tool, name=name: git(*commands[tool], name)))
            times[f"{tool} cpu"].append(processor() - before)
            if tool == "theta":
                times["status"].append(timed(lambda git=git: git("status")))
            if not same(directory / tool / "model.safetensors", experts[name]):
                raise SystemExit(f"{tool}: the file is not what was committed")
        os.sync()
        times["cp"].append(timed(lambda name=name: shutil.copyfile(experts[name], directory / "copy")))
    return times


def processor() -> float:
    """Seconds of processor time, of the kernel too, that all children took so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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


if __name__ == "__main__":
    main()

"""How long the same objects take to a server and back, as tensors of one model and as files of git-lfs.

    python bench/transfer.py                # about a minute

Prints a Markdown table of medians. The server runs on the same machine, so it takes processor time from both alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from core import compiled
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lfs_server import Server

OBJECTS = 300
SIZE = 256 << 10  # bytes each
RUNS = 5
LIMIT = 1.5  # times git-lfs


def main() -> None:
    """Print a table of medians."""
    with TemporaryDirectory() as directory:
        work = Path(directory)
        compiled()
        os.environ |= {"HOME": directory, "GIT_CONFIG_NOSYSTEM": "1"}
        git(work, "config", "--global", "user.name", "bench")
        git(work, "config", "--global", "user.email", "bench@example.com")
        git(work, "lfs", "install")
        git(work, "theta", "install")
        (work / "server").mkdir()
        with Server(work / "server").running() as server:
            measure(work, server)


def measure(work: Path, server: Server) -> None:
    """Push and fetch, alternately, so that whatever else the machine does meets both."""
    plain, ours = repository(work / "plain", "lfs", "*.bin"), repository(work / "ours", "theta", "*.safetensors")
    values = np.random.default_rng(0).integers(0, 1 << 32, (OBJECTS, SIZE // 4), dtype="u4")
    for index, row in enumerate(values):
        (plain / f"{index}.bin").write_bytes(row.tobytes())
    save_file({f"{index}": row for index, row in enumerate(values)}, ours / "model.safetensors")
    times: dict[str, list[float]] = {}
    for directory in (plain, ours):
        git(directory, "add", ".")
        git(directory, "commit", "--quiet", "--message", "models")
    for run in range(RUNS):
        for directory, name in ((plain, "lfs"), (ours, "theta")):
            url = server.create(f"{name}-{run}")
            git(directory, "remote", "add", f"remote-{run}", url)
            times.setdefault(f"push {name}", []).append(seconds(directory, name, "push", f"remote-{run}", "main"))
            assert len(server.objects(f"{name}-{run}")) >= OBJECTS
            git(directory, "push", "--quiet", "--no-verify", f"remote-{run}", "main")
            clone = work / f"clone-{name}-{run}"
            git(work, "clone", "--quiet", url, str(clone), GIT_LFS_SKIP_SMUDGE="1", GIT_THETA_SKIP_SMUDGE="1")
            times.setdefault(f"fetch {name}", []).append(seconds(clone, name, "fetch"))
    print(f"| {OBJECTS} objects of {SIZE >> 10} KiB | git-lfs | git-theta | ratio | target |\n|---|---|---|---|---|")
    for verb in ("push", "fetch"):
        lfs, theta = (statistics.median(times[f"{verb} {name}"]) for name in ("lfs", "theta"))
        held = "held" if theta <= LIMIT * lfs else "missed"
        print(f"| {verb} | {lfs:.2f} s | {theta:.2f} s | {theta / lfs:.2f} | {LIMIT}: {held} |")


def repository(path: Path, tool: str, pattern: str) -> Path:
    git(path.parent, "init", "--quiet", "--initial-branch=main", str(path))
    git(path, tool, "track", pattern)
    return path


def seconds(directory: Path, *command: str) -> float:
    start = time.perf_counter()
    git(directory, *command)
    return time.perf_counter() - start


def git(directory: Path, *arguments: str, **environment: str) -> None:
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env={**os.environ, **environment}, capture_output=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.decode()}")


if __name__ == "__main__":
    main()

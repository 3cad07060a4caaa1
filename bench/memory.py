"""Peak memory of the filters for one tensor that is far larger than their memory should be.

    python bench/memory.py             # one tensor of 4 GiB, float32; some minutes and 20 GiB of disk
    python bench/memory.py --gib 1

The tensor is added alone, then as a small change of itself; both are checked out again. Prints a Markdown table, and
fails if our process, without git's own, takes more than 600 MB at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from core import FILTERS, METER, new_repository, timed

LIMIT = 600e6  # bytes
BLOCK = 16 << 20  # numbers written at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, default=4, help="size of the tensor (4)")
    parser.add_argument("--directory", type=Path, help="where to work (the system's temporary directory)")
    options = parser.parse_args()
    print(f"| one tensor of {options.gib} GiB | peak memory | seconds |\n|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        worst = run(Path(directory), options.gib << 30)
    if worst > LIMIT:
        sys.exit(f"{worst / 1e6:.0f} MB are more than {LIMIT / 1e6:.0f}")


def run(directory: Path, size: int) -> float:
    """Print a row for each command; returns the highest peak in bytes."""
    meter, log = directory / "meter.py", directory / "peaks"
    meter.write_text(METER)
    prefix = f"'{sys.executable}' '{meter}' '{log}' "
    repository = directory / "repository"
    git = new_repository(repository, "theta", {verb: prefix + line for verb, line in FILTERS["theta"].items()})
    model = repository / "model.safetensors"
    worst = 0.0

    def row(label: str, job: Callable[[], object]) -> None:
        nonlocal worst
        os.sync()
        log.unlink(missing_ok=True)
        seconds = timed(job)
        peak = max(map(int, log.read_text().split())) * 1024.0
        worst = max(worst, peak)
        print(f"| {label} | {peak / 1e6:.0f} MB | {seconds:.0f} |", flush=True)

    for step, label in enumerate(("add, the tensor alone", "add, a change of it")):
        write_tensor(model, size, step)
        time.sleep(0.1)  # git and we both distrust a file that was written in the same tick as it is read
        row(label, lambda: git("add", model.name))
        git("commit", "-qm", label)
    row("checkout, the tensor alone", lambda: git("checkout", "-q", "HEAD^"))
    row("checkout, the change of it", lambda: git("checkout", "-q", "main"))
    return worst


def write_tensor(path: Path, size: int, step: int) -> None:
    """Gaussian weights: one random block over and over, each time scaled a little differently, then ``step`` on."""
    header = {"weight": {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    weights = np.random.default_rng(0).standard_normal(BLOCK, np.float32) * 0.02
    change = np.random.default_rng(1).standard_normal(BLOCK, np.float32) * 1e-4 * step
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index in range(size // weights.nbytes):
            (weights * np.float32(1 + index / 1000) + change).tofile(file)


if __name__ == "__main__":
    main()

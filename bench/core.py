"""Side by side on one model: git-theta-btm, git-lfs and cp, for the commands that a day is made of.

    python bench/core.py                    # 1 GiB, fp32 and bf16, three runs; about ten minutes and 12 GiB of disk
    python bench/core.py --mib 256 --runs 1 --dtypes F32

Prints a Markdown table: the median of each tool's wall time, and the ratio of the medians. The runs of the tools
alternate, so that a slow moment of the machine falls on all of them. Nothing outside the temporary directory is
touched; git's own configuration is sealed off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

TENSORS = 150  # as in a GPT-2; two of them are the one per cent that a small change touches
ROWS = (
    "first add",
    "re-add after touch",
    "add, 1 % of the tensors changed",
    "checkout of a branch",
    "second status of a modified model",
)
FILTERS = {
    "theta": {"clean": "git-theta-filter clean -- %f", "smudge": "git-theta-filter smudge -- %f"},
    "lfs": {"clean": "git-lfs clean -- %f", "smudge": "git-lfs smudge -- %f", "process": "git-lfs filter-process"},
}
# Runs a filter and appends its peak memory in KiB to a file, so that git's own memory is not counted.
METER = """
import os, sys
status = os.spawnvp(os.P_WAIT, sys.argv[2], sys.argv[2:])
import resource
with open(sys.argv[1], "a") as log:
    log.write(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}\\n")
sys.exit(status)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the model (1024)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool (3)")
    parser.add_argument("--dtypes", nargs="+", default=["F32", "BF16"], choices=["F32", "BF16"])
    parser.add_argument("--directory", type=Path, help="where to work (the system's temporary directory)")
    options = parser.parse_args()
    compiled()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {version('git')}, ", end=""
    )
    print(
        f"{version('git-lfs')}; {options.mib} MiB, {TENSORS} tensors, median of {options.runs} runs, warm page cache\n"
    )
    for dtype in options.dtypes:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            bench(Path(directory), dtype, options.mib << 20, options.runs)


def version(tool: str) -> str:
    return subprocess.run([tool, "version"], capture_output=True, text=True, check=True).stdout.split(" (")[0].strip()


def bench(directory: Path, dtype: str, size: int, runs: int) -> None:
    seed, expert = directory / "seed.safetensors", directory / "expert.safetensors"
    write_model(seed, dtype, size, changed=0)
    write_model(expert, dtype, size, changed=2)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(runs):
        times["cp", "cp"].append(timed(lambda: shutil.copyfile(seed, directory / "copy")))
        for tool in FILTERS:
            for row, seconds in one_run(directory / tool, tool, seed, expert).items():
                times[tool, row].append(seconds)
    print(f"| {dtype} | git-theta-btm | git-lfs | ratio |\n|---|---|---|---|")
    for row in ROWS:
        ours, theirs = (statistics.median(times[tool, row]) for tool in ("theta", "lfs"))
        print(f"| {row} | {ours:.2f} s | {theirs:.2f} s | {ours / theirs:.2f} |")
    print(f"| `cp` of the file, for scale | {statistics.median(times['cp', 'cp']):.2f} s | | |")
    for verb, peak in peaks(directory / "memory", seed, expert).items():
        print(f"| peak memory of our {verb} | {peak / 1024:.0f} MiB | | |")
    print(flush=True)


def write_model(path: Path, dtype: str, size: int, *, changed: int) -> None:
    """Gaussian weights, as a trained model's roughly are; the first ``changed`` tensors differ between two models."""
    width = {"F32": 4, "BF16": 2}[dtype]
    numel = size // TENSORS // width // 1024 * 1024
    header = {
        f"h.{index}.weight": {
            "dtype": dtype,
            "shape": [numel // 1024, 1024],
            "data_offsets": [index * numel * width, (index + 1) * numel * width],
        }
        for index in range(TENSORS)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index in range(TENSORS):
            weights = np.random.default_rng([index, index < changed]).standard_normal(numel, np.float32) * 0.02
            file.write(weights.tobytes() if width == 4 else (weights.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def one_run(repository: Path, tool: str, seed: Path, expert: Path) -> dict[str, float]:
    git = new_repository(repository, tool, FILTERS[tool])
    model = repository / "model.safetensors"
    shutil.copyfile(seed, model)
    os.sync()
    rows = {"first add": timed(lambda: git("add", "model.safetensors"))}
    git("commit", "-qm", "seed")
    model.touch()
    rows["re-add after touch"] = timed(lambda: git("add", "model.safetensors"))
    git("checkout", "-qb", "expert")
    shutil.copyfile(expert, model)
    os.sync()
    rows["add, 1 % of the tensors changed"] = timed(lambda: git("add", "model.safetensors"))
    git("commit", "-qm", "expert")
    os.sync()
    rows["checkout of a branch"] = timed(lambda: git("checkout", "-q", "main"))
    if not same(model, seed):
        sys.exit(f"{tool}: the file is not what was committed")
    shutil.copyfile(expert, model)  # a fine-tune of the same size, not staged: the usual state while one works
    git("status", "--short")
    rows["second status of a modified model"] = timed(lambda: git("status", "--short"))
    shutil.rmtree(repository)
    return rows


def compiled() -> None:
    """Have Python keep the package's bytecode, as it does where one is installed, whatever the environment says."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def new_repository(repository: Path, tool: str, commands: dict[str, str]) -> Callable[..., None]:
    repository.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"HOME": str(repository.parent), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=repository, env=environment, check=True, stdout=subprocess.DEVNULL)

    git("init", "-qb", "main")
    for key, value in {"user.name": "bench", "user.email": "bench@localhost", "gc.auto": "0"}.items():
        git("config", key, value)
    for verb, command in {**commands, "required": "true"}.items():
        git("config", f"filter.{tool}.{verb}", command)
    (repository / ".gitattributes").write_text(f"*.safetensors filter={tool} -text\n")
    git("add", ".gitattributes")
    git("commit", "-qm", "attributes")
    return git


def peaks(repository: Path, seed: Path, expert: Path) -> dict[str, int]:
    """Peak memory in KiB of clean and smudge, each in a run of its own."""
    meter, log = repository.parent / "meter.py", repository.parent / "peaks"
    meter.write_text(METER)
    prefix = f"'{sys.executable}' '{meter}' '{log}' "
    git = new_repository(repository, "theta", {verb: prefix + line for verb, line in FILTERS["theta"].items()})
    result = {}
    for verb, model in (("clean", seed), ("smudge", expert)):
        shutil.copyfile(model, repository / "model.safetensors")
        git("add", "model.safetensors")
        git("commit", "-qm", verb)
        log.unlink(missing_ok=True) if verb == "smudge" else None
        git("checkout", "-q", "HEAD^" if verb == "smudge" else "HEAD")
        result[verb] = max(map(int, log.read_text().split()))
    return result


def timed(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def same(left: Path, right: Path) -> bool:
    return subprocess.run(["cmp", "-s", left, right], check=False).returncode == 0


if __name__ == "__main__":
    main()

"""What the history of an ensemble takes to store: git-theta-btm, git-lfs and other methods, on the same sixteen files.

    python bench/storage.py                    # trains for some minutes, then measures for some; 8 GiB of disk
    python bench/storage.py --quick            # a minute in all; models too small for the figures to mean much
    python bench/storage.py --work DIRECTORY   # keeps the trained models there, to measure again

The versions (``training.py``) are committed as a user would: the seed on main, each expert on a branch of its own,
their average as a merge commit, training on main after it. Every version is checked out again and compared. Prints
Markdown tables; times are medians over ``--runs``, in which the tools alternate. Git's own configuration is sealed off.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, chdir
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import rivals
import training
from core import FILTERS, compiled, new_repository, same, timed, version
from speed import speeds

from git_theta_btm import formats
from git_theta_btm.blobs import Blobs
from git_theta_btm.filters.encode import Candidate, offer
from git_theta_btm.filters.session import Session
from git_theta_btm.git import Git
from git_theta_btm.manifest import loads
from git_theta_btm.source import BytesSource

OURS = {"fast": "git-theta-btm, fast (default)", "small": "git-theta-btm, small"}
TOOLS = {"fast": "theta", "small": "theta", "lfs": "lfs"}
LFS = "git-lfs"
TARGETS = {  # what the best mode is to stay below: a share of each rival's bytes
    "BF16": {LFS: 0.45, rivals.PLANES: 0.65, rivals.BITX: 0.70},
    "F32": {rivals.PLANES: 0.88, rivals.BITX: 0.87},
}


@dataclass(slots=True)
class Outcome:
    """What one tool made of the history: bytes by version, bytes of git's own objects, seconds."""

    grown: dict[str, int] = field(default_factory=dict)
    manifests: int = 0
    add: float = 0.0
    checkout: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.grown.values()) + self.manifests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a model of a million parameters, trained for a minute")
    parser.add_argument("--work", type=Path, help="where the trained models are kept (a temporary directory)")
    parser.add_argument("--runs", type=int, default=1, help="runs of each tool (1)")
    parser.add_argument("--series", nargs="+", default=["BF16", "F32", "pt"], choices=["BF16", "F32", "pt"])
    options = parser.parse_args()
    compiled()
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        plan = training.QUICK if options.quick else training.Plan()
        training.prepare(work, plan)
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
        print(f"{version('git')}, {version('git-lfs')}; median of {options.runs} runs, warm page cache\n")
        for series in options.series:
            measure(work, plan, series, options.runs)
        speeds(work)


def measure(work: Path, plan: training.Plan, series: str, runs: int) -> None:
    """One kind of file through everything that stores it."""
    versions = [item for item in training.history(plan) if series in training.DTYPES or item.optimizer]
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    for _ in range(runs):
        for mode in TOOLS:
            with tempfile.TemporaryDirectory(dir=work) as directory:
                outcomes[mode].append(History(Path(directory) / "repository", mode, series).run(work, versions))
    files = {item.name: work / f"{item.name}.{series}" for item in versions}
    parents = {files[item.name]: files[item.parent or "seed"] for item in versions if item.name != "seed"}
    lineage = rivals.Lineage(tuple(files.values()), parents)
    sizes = {OURS.get(mode, LFS): runs[0].total for mode, runs in outcomes.items()}
    sizes |= {name: method(lineage) for name, method in rivals.METHODS.items()}
    table_of_bytes(series, sizes, rivals.copies(lineage))
    table_of_times(outcomes, rivals.copies(lineage))
    table_of_versions(versions, outcomes, files)


class History:
    """A repository in which the versions are committed one after the other and checked out again."""

    def __init__(self, path: Path, mode: str, series: str) -> None:
        self.path, self.tool = path, TOOLS[mode]
        self.git = new_repository(path, self.tool, FILTERS[self.tool])
        self.model = path / ("model.pt" if series == "pt" else "model.safetensors")
        self.suffix = series
        attributes = f"model.* filter={self.tool} -text theta-store={mode}\n"
        (path / ".git" / "info" / "attributes").write_text(attributes)
        self.objects = path / ".git" / ("lfs/objects" if mode == "lfs" else "theta/objects")

    def run(self, work: Path, versions: Sequence[training.Version]) -> Outcome:
        outcome = Outcome()
        for item in versions:
            before = size_of(self.objects)
            outcome.add += self._commit(item, work / f"{item.name}.{self.suffix}")
            outcome.grown[item.name] = size_of(self.objects) - before
        for item in versions:
            os.sync()
            outcome.checkout += timed(partial(self.git, "checkout", "-q", "--detach", item.name))
            if not same(self.model, work / f"{item.name}.{self.suffix}"):
                sys.exit(f"{self.tool}: {item.name} is not what was committed")
        self.git("gc", "-q")
        outcome.manifests = size_of(self.path / ".git" / "objects")
        return outcome

    def _commit(self, item: training.Version, file: Path) -> float:
        """Commit one version where it belongs; returns the seconds of ``git add``, and of the merge before it."""
        seconds = 0.0
        if item.name == training.MERGE:
            self.git("checkout", "-q", "main")
            self.git("merge", "-q", "-s", "ours", "--no-commit", *training.EXPERTS)
            if self.tool == "theta":
                seconds += timed(lambda: self._offer(file))
        elif item.branch != "main" and item.parent == "seed":
            self.git("checkout", "-qb", item.branch, "seed")
        shutil.copyfile(file, self.model)
        os.sync()
        seconds += timed(lambda: self.git("add", self.model.name))
        self.git("commit", "-qm", item.name)
        self.git("tag", item.name)
        return seconds

    def _offer(self, file: Path) -> None:
        """What a merge of ours does besides writing the file: each tensor is stored as the average that it is."""
        source = BytesSource(file.read_bytes())
        located = {item.name: item for item in formats.locate(source)[1]}
        with chdir(self.path), Session(self.model.name) as session:
            tips = [loads(Git().blob(f"{branch}:{self.model.name}")) for branch in training.EXPERTS]
            blobs = Blobs([stored for tip in tips for stored in tip.objects], session.store)
            for entries in zip(*(tip.entries for tip in tips), strict=True):
                tensor = entries[0].tensor
                if entries[0].blob.packed:
                    continue
                recipe = training.recipe(tensor.dtype.name, len(tips))
                candidate = Candidate("linear", tuple(entry.blob for entry in entries), recipe)
                data = source.read(located[entries[0].name].offset, tensor.nbytes)
                offer(data, tensor, candidate, blobs, (session.store, session.catalogue))


def size_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def table_of_bytes(series: str, sizes: Mapping[str, int], full: int) -> None:
    best = min(OURS.values(), key=sizes.__getitem__)
    print(f"| {series} | MB | of full copies | fast : this | small : this | target |\n|---|---|---|---|---|---|")
    print(f"| full copies | {full / 1e6:.1f} | 1.000 | | | |")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        fast, small = (f"{sizes[ours] / size:.3f}" for ours in OURS.values())
        target = TARGETS.get(series, {}).get(name)
        verdict = f"{target}: {'held' if sizes[best] <= target * size else 'missed'}" if target else ""
        print(f"| {name} | {size / 1e6:.1f} | {size / full:.3f} | {fast} | {small} | {verdict} |")
    print(flush=True)


def table_of_times(outcomes: Mapping[str, Sequence[Outcome]], full: int) -> None:
    print("| | all `git add` | GB/s | all `git checkout` | GB/s |\n|---|---|---|---|---|")
    for mode, runs in outcomes.items():
        add, checkout = (median(runs, pick) for pick in (lambda run: run.add, lambda run: run.checkout))
        rates = f"{add:.1f} s | {full / add / 1e9:.2f} | {checkout:.1f} s | {full / checkout / 1e9:.2f}"
        print(f"| {OURS.get(mode, LFS)} | {rates} |")
    print(flush=True)


def median(runs: Sequence[Outcome], pick: Callable[[Outcome], float]) -> float:
    return statistics.median(map(pick, runs))


def table_of_versions(
    versions: Sequence[training.Version], outcomes: Mapping[str, Sequence[Outcome]], files: Mapping[str, Path]
) -> None:
    print("| version | steps | fast, of its file | small, of its file |\n|---|---|---|---|")
    for item in versions:
        shares = (outcomes[mode][0].grown[item.name] / files[item.name].stat().st_size for mode in OURS)
        print(f"| {item.name} | {item.steps or ''} | {' | '.join(f'{share:.3f}' for share in shares)} |")
    fast, small = (outcomes[mode][0].manifests for mode in OURS)
    print(f"\nmanifests and the rest of git's own objects: {fast / 1e6:.2f} MB fast, {small / 1e6:.2f} MB small\n")


if __name__ == "__main__":
    main()

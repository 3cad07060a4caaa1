"""Many experts of a small model: branch, commit, switch, evaluate, merge all; time and bytes of each.

    python bench/experts.py                          # 8, 16, 32 and 64 experts: about a quarter of an hour on two cores
    python bench/experts.py --experts 4 8

Prints a Markdown table with a column for each number of experts, so that what grows faster than it shows. The seed and
each expert are trained for a few updates by what ``git btm train`` runs, but in one process: a process each would
measure how long torch takes to import. Everything else is the commands that a user types. The evaluation is one column
of the matrix, all experts on one domain: the whole matrix has the square of that, by its nature. Nothing outside the
temporary directory is touched; git's own configuration is sealed off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import texts
from core import version

CHARACTERS = 16_000  # of a domain's text
DOCUMENT = 400  # of them: so many documents that none of the splits is empty
SPLITS = "6,2,2"
STEPS = 4  # of a seed, and as many of each expert
SETTINGS = {"steps": 2 * STEPS, "save_every": STEPS, "batch": 4, "micro_batch": 4, "learning_rate": "1e-3"}
MODEL = "tiny-gpt2"  # 0.73 MB, and twice that for the state of its optimizer
ROWS = {  # what was measured, and whether the table has it for each expert
    "data": ("adding the text of a domain", True),
    "branch": ("`git btm branch`", True),
    "train": ("a few updates and their commit", True),
    "checkout": ("`git checkout`", True),
    "switch": ("`git theta switch`", True),
    "eval": ("`git btm eval` of all on one domain", True),
    "again": ("the same, known already", True),
    "status": ("`git btm status`", False),
    "merge": ("`git btm merge` of all", True),
    "size": ("`git theta size --by branch`", False),
}


class Grove:
    """A repository with a number of experts, and the seconds that each step took."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count, self.seconds = root, count, dict[str, float]()
        self.names = [f"expert-{number:02}" for number in range(count)]
        root.mkdir()

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"git {' '.join(words)[:200]}: exit code {done.returncode}: {done.stderr}")
        return done.stdout

    def timed(self, row: str, *commands: tuple[str, ...]) -> str:
        """Run commands, and count their time to a row; what the last one printed."""
        said, start = "", time.monotonic()
        for words in commands:
            said = self.git(*words)
        self.seconds[row] = self.seconds.get(row, 0.0) + time.monotonic() - start
        return said

    def plant(self, corpus: Path) -> None:
        """The settings, the text, the seed, and a branch for each expert."""
        self.git("init", "-q", "-b", "main")
        self.git("theta", "install", "--local")
        values = [word for key, value in SETTINGS.items() for word in ("--set", f"training.{key}={value}")]
        self.git("btm", "init", "--model", MODEL, *values)
        self.git("commit", "-qm", "Branch-Train-Merge")
        files = list(pieces(corpus, self.names))
        self.timed("data", *(("btm", "data", "add", "--splits", SPLITS, name, str(file)) for name, file in files))
        train(self.root, None)
        self.timed("branch", ("btm", "branch", *self.names))

    def grow(self) -> None:
        """Train each expert."""
        start = time.monotonic()
        for name in self.names:
            train(self.root, name)
        self.seconds["train"] = time.monotonic() - start

    def use(self) -> None:
        """Switch through all, evaluate, and merge them."""
        for row, words in (("checkout", ("checkout", "-q")), ("switch", ("theta", "switch"))):
            self.timed(row, *((*words, name) for name in self.names))
            self.git("checkout", "-q", "main")
        for row in ("eval", "again"):
            self.timed(row, ("btm", "eval", "--data", self.names[0], *self.names))
        self.timed("status", ("btm", "status"))

    def merge(self) -> None:
        """All into one model, as one commit on the seed's branch."""
        self.timed("merge", ("btm", "merge", *self.names))
        if len(self.git("log", "-1", "--format=%P").split()) < self.count:
            sys.exit("the merge has not all experts for parents")

    def bytes(self) -> tuple[float, float]:
        """What an expert has that no other branch has, as stored; and its files beyond those of the seed's branch."""
        found = json.loads(self.timed("size", ("theta", "size", "--by", "branch", "--json")))
        rooms = {row["name"]: row for row in found["groups"]}
        added = sum(rooms[name]["added"] for name in self.names)
        copies = sum(rooms[name]["copies"] - rooms["main"]["copies"] for name in self.names)
        return added / self.count, copies / self.count

    def merged(self) -> float:
        """What the merge took that was not there before."""
        return float(json.loads(self.git("theta", "size", "--by", "commit", "--json"))["groups"][-1]["added"])


def pieces(corpus: Path, names: list[str]) -> Iterator[tuple[str, Path]]:
    """A file of text for each name: equal pieces of all that the machine has, kind by kind."""
    rows = [row for kind in sorted(corpus.iterdir()) for row in kind.read_text().splitlines(keepends=True)]
    own = len(rows) // len(names)
    for number, name in enumerate(names):
        text = "".join(json.loads(row)["text"] for row in rows[number * own : (number + 1) * own])[:CHARACTERS]
        parts = [text[start : start + DOCUMENT] for start in range(0, len(text), DOCUMENT)]
        file = corpus.parent / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": part}) + "\n" for part in parts))
        yield name, file


def train(root: Path, name: str | None) -> None:
    """Train the seed or an expert, in this process, and commit it as ``git btm train`` does."""
    import torch

    from git_theta_btm.btm.settings import load
    from git_theta_btm.btm.training.requests import Request, seed_stop
    from git_theta_btm.btm.training.running import run

    torch.set_num_threads(1)  # such a model is no faster with more
    settings = load(str(root))
    if name is None:
        request = Request(
            str(root), "refs/heads/main", tuple(settings.domains), seed_stop(settings), settings, balance="equal"
        )
    else:
        request = Request(str(root), f"refs/heads/{name}", (name,), settings.training.steps, settings)
    sys.stdout, before = sys.stderr, sys.stdout  # transformers prints its progress
    try:
        run(request)
    finally:
        sys.stdout = before


def surroundings(directory: Path) -> None:
    """git and this interpreter, without anybody's configuration."""
    home = directory / "home"
    home.mkdir()
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    os.environ |= {"HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        os.environ |= {f"GIT_{role}_NAME": "bench", f"GIT_{role}_EMAIL": "bench@example.com"}


def measure(directory: Path, count: int) -> tuple[Grove, tuple[float, float, float]]:
    grove = Grove(directory / f"of-{count}", count)
    grove.plant(directory / "corpus")
    grove.grow()
    grove.use()
    own = grove.bytes()
    grove.merge()
    found = (*own, grove.merged())
    for row, seconds in grove.seconds.items():
        print(f"{count:3} experts: {seconds:7.2f} s  {row}", file=sys.stderr, flush=True)
    return grove, found


def table(found: list[tuple[Grove, tuple[float, float, float]]]) -> Iterator[str]:
    yield "| experts | " + " | ".join(str(grove.count) for grove, _ in found) + " |"
    yield "|---|" + "---|" * len(found)
    for row, (label, each) in ROWS.items():
        cells = [grove.seconds[row] / (grove.count if each else 1) for grove, _ in found]
        unit = ", an expert" if each else ""
        yield f"| {label}{unit} | " + " | ".join(f"{seconds:.2f} s" for seconds in cells) + " |"
    labels = ("an expert's own bytes, as stored", "its files, as git-lfs would keep them", "the merge's own bytes")
    for index, label in enumerate(labels):
        yield f"| {label} | " + " | ".join(f"{numbers[index] / 1e6:.2f} MB" for _, numbers in found) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 16, 32, 64], help="how many (8 16 32 64)")
    parser.add_argument("--directory", type=Path, help="where to work (the system's temporary directory)")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {version('git')}\n")
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        surroundings(directory)
        kinds = list(texts.DOMAINS)
        texts.write(str(directory / "corpus"), 2 * CHARACTERS * max(options.experts) // len(kinds) + 100_000, kinds)
        found: list[Any] = [measure(directory, count) for count in options.experts]
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()

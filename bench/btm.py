"""Branch-Train-Merge at full size: eight domains of local text, one expert each, and what everything is worth.

    python bench/btm.py --work DIRECTORY            # about half an hour on two cores; prints Markdown
    python bench/btm.py --work DIRECTORY --quick    # three domains, a tiny model: some minutes

All is done by the commands that a user types; a run that was interrupted goes on where it stopped. The expected
orderings are checked, and the exit code is 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import texts

CONFIG = {  # two million parameters over bytes
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 258, "n_positions": 1024, "n_layer": 4,
    "n_embd": 192, "n_head": 6, "bos_token_id": 256, "eos_token_id": 256, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}  # fmt: skip
TARGET = "legal"  # the domain that merges and ensembles are aimed at


class Run:
    """A repository of experts, and the time that each command took."""

    def __init__(self, work: Path, *, quick: bool) -> None:
        self.root = work / ("quick" if quick else "full")
        self.domains = list(texts.DOMAINS)[:3] if quick else list(texts.DOMAINS)
        self.quick, self.times = quick, dict[str, float]()
        self.root.mkdir(parents=True, exist_ok=True)

    def git(self, *words: str, name: str = "") -> str:
        start = time.monotonic()
        done = subprocess.run(["git", *words], cwd=self.root, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"git {' '.join(words)}: exit code {done.returncode}")
        if name:
            self.times[name] = time.monotonic() - start
            print(f"{self.times[name]:7.1f} s  git {' '.join(words)}", file=sys.stderr)
        return done.stdout

    def json(self, *words: str, name: str = "") -> Any:
        return json.loads(self.git(*words, "--json", name=name))

    def prepare(self) -> None:
        """The repository, its settings, and the text."""
        if (self.root / "btm.toml").exists():
            return
        for key, value in (("user.name", "bench"), ("user.email", "bench@example.com")):
            os.environ |= {f"GIT_AUTHOR_{key[5:].upper()}": value, f"GIT_COMMITTER_{key[5:].upper()}": value}
        self.git("init", "-q", "-b", "main")
        self.git("theta", "install", "--local")
        model = "tiny-gpt2"
        if not self.quick:
            model = str(self.root.parent / "architecture")
            Path(model).mkdir(exist_ok=True)
            (Path(model) / "config.json").write_text(json.dumps(CONFIG))
        size = ("200", "16", "3e-3") if self.quick else ("400", "32", "2e-3")
        values = {
            "batch": size[1],
            "micro_batch": size[1],
            "learning_rate": size[2],
            "clip": "1.0",
            "save_every": "100",
        }
        settings = [word for key, value in values.items() for word in ("--set", f"training.{key}={value}")]
        self.git("btm", "init", "--model", model, "--steps", size[0], *settings)
        self.git("commit", "-qm", "Branch-Train-Merge")
        corpus = self.root.parent / "corpus"
        texts.write(str(corpus), 240_000 if self.quick else 1_500_000, self.domains)
        for domain in self.domains:
            self.git("btm", "data", "add", domain, str(corpus / f"{domain}.jsonl"))

    def train(self) -> None:
        self.git("btm", "seed", "train", "--balance", "equal", name="seed")
        self.git("btm", "branch", *self.domains)
        self.git("btm", "train", "--all", "-j", "2", name="experts, two at a time")
        settings = tomllib.loads((self.root / "btm.toml").read_text())["training"]
        # It goes on from the seed too: as many updates as each expert, and as many tokens as all of them together.
        batch = settings["batch"] * len(self.domains)
        self.git("btm", "seed", "train", "--dense", "--set", f"batch={batch}", name="dense")


def perplexities(run: Run) -> dict[str, dict[str, float]]:
    """By model and domain; ``dense`` among them."""
    found = run.json("btm", "eval", "--matrix", name="matrix")["models"]
    found += run.json("btm", "eval", "dense", "--data", ",".join(run.domains), name="dense, evaluated")["models"]
    table = {}
    for row in found:
        table[row["model"]] = {domain: row["scores"][domain]["perplexity"] for domain in run.domains}
    return table


def ensembles(run: Run) -> dict[str, dict[str, float]]:
    """By kind and domain. Of ``cached prior`` each domain has its own prior, from its own validation text."""
    if not (run.root / "ensembles" / "all.json").exists():
        for domain in run.domains:
            run.git("btm", "prior", domain, name=f"prior of {domain}")
        run.git("btm", "ensemble", "create", "all")
    kinds = {
        "ensemble: simple average": ["--type", "simple-average"],
        "ensemble: last token": ["--type", "uniform-prior", "--posterior", "last-token"],
        "ensemble: history": ["--type", "uniform-prior", "--posterior", "history"],
    }
    table = {}
    for kind, words in kinds.items():
        rows = run.json("btm", "ensemble", "eval", "all", *words, name=kind)["domains"]
        table[kind] = {row["domain"]: row["perplexity"] for row in rows}
    cached = {}
    for domain in run.domains:
        words = ["--prior", f"priors/{domain}.json", "--data", domain]
        (row,) = run.json("btm", "ensemble", "eval", "all", *words)["domains"]
        cached[domain] = row["perplexity"]
    return table | {"ensemble: cached prior": cached}


def merges(run: Run) -> dict[str, float]:
    """Perplexity on the target by way of merging, and that of the uniform merge."""
    found = {}
    for way in ("prior", "argmax", "greedy", "search"):
        weights = f"{way}:{TARGET}" if way in ("prior", "argmax") else way
        words = ["--weights", weights, "--domain", TARGET, "--evaluations", "20", "--dry-run"]
        figures = run.json("btm", "merge", *run.domains, *words, name=f"merge: {way}")["perplexity"]
        found |= {"merge: uniform": figures["uniform merge"], f"merge: {way}": figures["this merge"]}
    return found


def orderings(run: Run, table: dict[str, dict[str, float]], merged: dict[str, float]) -> Iterator[tuple[str, bool]]:
    """What has to hold, and whether it does."""
    domains = run.domains
    mean = {model: sum(row.values()) / len(row) for model, row in table.items()}
    yield "every expert beats the seed by 5 % at home", all(table[d][d] < 0.95 * table["seed"][d] for d in domains)
    yield "every expert is the best at home", all(min(domains, key=lambda m, d=d: table[m][d]) == d for d in domains)
    cached, history = table["ensemble: cached prior"], table["ensemble: history"]
    yield "the ensemble is within 1 % of the expert at home", all(cached[d] <= 1.01 * table[d][d] for d in domains)
    yield "the ensemble beats every expert on all text", mean["ensemble: history"] < min(mean[d] for d in domains)
    yield "the ensemble beats the dense model of as many tokens", mean["ensemble: cached prior"] < mean["dense"]
    yield "history beats the last token", sum(history.values()) < sum(table["ensemble: last token"].values())
    best = merged["merge: prior"]
    yield (
        "the merge by the prior beats the uniform merge and the seed",
        best < min(merged["merge: uniform"], table["seed"][TARGET]),
    )
    priors = {d: json.loads((run.root / "priors" / f"{d}.json").read_text())["prior"] for d in domains}
    yield "the prior finds the right domain", all(max(p, key=p.__getitem__) == d for d, p in priors.items())


def main() -> None:
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the repository is made, and kept")
    parser.add_argument("--quick", action="store_true", help="three domains and a tiny model")
    arguments = parser.parse_args()
    run = Run(arguments.work.resolve(), quick=arguments.quick)
    run.prepare()
    run.train()
    table = perplexities(run)
    table |= ensembles(run)
    merged = merges(run)
    print(
        "| perplexity of a byte |", " | ".join(run.domains), "| mean |\n|---|", "---|" * (len(run.domains) + 1), sep=""
    )
    for model, row in table.items():
        cells = [f"{row[domain]:.3f}" for domain in run.domains]
        print(f"| {model} |", " | ".join(cells), f"| {sum(row.values()) / len(row):.3f} |")
    print(f"\n| on {TARGET} | perplexity |\n|---|---|")
    for way, figure in {f"expert {TARGET}": table[TARGET][TARGET], **merged}.items():
        print(f"| {way} | {figure:.3f} |")
    print("\n| step | seconds |\n|---|---|")
    for name, seconds in run.times.items():
        print(f"| {name} | {seconds:.0f} |")
    size = run.json("theta", "size", "--by", "branch")
    print("\n```json\n" + re.sub(r"\s+", " ", json.dumps(size))[:4000] + "\n```")
    failed = False
    for name, holds in orderings(run, table, merged):
        failed |= not holds
        print(f"- {'yes' if holds else 'NO'}: {name}")
    sys.exit(failed)


if __name__ == "__main__":
    main()

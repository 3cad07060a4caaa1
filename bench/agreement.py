"""Whether our merges have mergekit's numbers: for each method that both have, the largest difference.

Differences are counted in units of the last place of the largest input at an element: a method that adds and subtracts
cannot do better there, whatever comes out. mergekit computes in float32 here, as it does not by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from git_theta_btm import formats
from git_theta_btm.floats import MANTISSA, narrow, widen
from git_theta_btm.planes import TYPES
from git_theta_btm.source import BytesSource

Floats: TypeAlias = npt.NDArray[np.floating]

SEED, EXPERTS, FILE = "main", ("legal", "medical", "code"), "model.safetensors"
WEIGHTS = {"legal": 0.5, "medical": 0.31, "code": 0.23}  # no two of them cancel the third
DENSITY = 0.5
RUN = """
import json, sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for config, out in json.load(sys.stdin):
    run_merge(MergeConfiguration.model_validate(yaml.safe_load(open(config))), out, MergeOptions(quiet=True))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A method of mergekit's, the experts that it merges, its base, and its options."""

    method: str
    experts: tuple[str, ...] = EXPERTS
    base: str = ""
    options: dict[str, object] = field(default_factory=dict)
    weighted: bool = True

    @property
    def label(self) -> str:
        words = [self.method, *(f"{name}={value}" for name, value in self.options.items())]
        return " ".join([*words, *(["with a base"] if self.base == SEED else [])])

    def yaml(self, place: Path | None, dtype: str) -> str:
        """The configuration; models are folders below ``place``, or revisions."""

        def name(model: str) -> str:
            return str(place / model) if place else model

        models = [
            {"model": name(item), **({"parameters": {"weight": WEIGHTS[item]}} if self.weighted else {})}
            for item in self.experts
        ]
        kind = {"F32": "float32", "BF16": "bfloat16"}[dtype]
        text = {"merge_method": self.method, "models": models, "dtype": "float32", "out_dtype": kind}
        text |= {"base_model": name(self.base)} if self.base else {}
        return json.dumps({**text, **({"parameters": self.options} if self.options else {})})


TWO = EXPERTS[:2]
CASES = (
    Case("linear"),
    Case("slerp", TWO[1:], TWO[0], {"t": 0.3}, weighted=False),
    Case("nuslerp", TWO),
    Case("nuslerp", TWO, SEED),
    Case("nuslerp", TWO, SEED, {"nuslerp_flatten": False}),
    Case("nuslerp", TWO, "", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    Case("task_arithmetic", base=SEED, options={"lambda": 0.7}),
    Case("ties", base=SEED, options={"density": 0.3}),
    Case("ties", base=SEED, options={"density": 1.0, "normalize": False}),
    Case("multislerp"),
    Case("multislerp", base=SEED),
    Case("karcher", weighted=False),
    Case("sce", base=SEED, options={"select_topk": 0.3}, weighted=False),
    Case("breadcrumbs", base=SEED, options={"density": 0.8, "gamma": 0.05}),
    Case("breadcrumbs_ties", base=SEED, options={"density": 0.8, "gamma": 0.05}),
    Case("model_stock", base=SEED, weighted=False),
    Case("model_stock", base=SEED, options={"filter_wise": True}, weighted=False),
    Case("nearswap", TWO[1:], TWO[0], {"t": 0.001}, weighted=False),
    Case("arcee_fusion", TWO[1:], TWO[0], weighted=False),
    Case("ram", base=SEED, options={"epsilon": 0.001}, weighted=False),
    Case("ramplus_tl", base=SEED, options={"epsilon": 0.001}, weighted=False),
)


# -- mergekit --------------------------------------------------------------------------------------------------------


def mergekit(work: Path) -> Path:
    """The interpreter of an environment with mergekit; what is there is kept."""
    python = work.resolve() / "mergekit" / "bin" / "python"
    if not (python.parent / "mergekit-yaml").exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        for package in ("torch==2.13.0", "mergekit"):  # in this order: pip would else take a build for CUDA
            subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
    return python


def versions(python: Path) -> str:
    """Those of mergekit and of the torch that it computes with."""
    code = "from importlib.metadata import version as v; print('mergekit', v('mergekit') + ',', 'torch', v('torch'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# -- numbers ---------------------------------------------------------------------------------------------------------


def compare(directory: Path, repository: Path, python: Path, dtype: str) -> None:
    """Print a table of all methods, and for BF16 one of the errors of TIES. Models are in folders of the directory."""
    pairs = []
    for number, case in enumerate(CASES):
        config = directory / f"{number}.yml"
        config.write_text(case.yaml(directory, dtype))
        pairs.append((str(config), str(directory / f"merged-{number}")))
    run(python, pairs)
    print(f"\n| {dtype} | elements that differ | at most, in last places of the inputs |\n|---|---|---|")
    for number, case in enumerate(CASES):
        config = directory / f"ours-{number}.yml"
        config.write_text(case.yaml(None, dtype))
        heads = tuple(dict.fromkeys(name for name in (case.base, *case.experts) if name not in ("", SEED)))
        try:
            merged = ours(repository, heads, [f"recipe={config}"])
        except subprocess.CalledProcessError as error:
            print(f"| {case.label} | ours fails: {error.stderr.splitlines()[0]} | |", flush=True)
            continue
        found = difference(directory, merged, directory / f"merged-{number}" / FILE, dtype)
        print(f"| {case.label} | {found} |", flush=True)
    if dtype == "BF16":
        errors(directory, repository, python)


def run(python: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Let mergekit make all that is asked for, in one process: it takes ten seconds to start."""
    done = subprocess.run([python, "-c", RUN], input=json.dumps(pairs), text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"mergekit failed:\n{done.stderr[-3000:]}")


def ours(repository: Path, heads: Sequence[str], options: Sequence[str]) -> Path:
    """The file that our merge of these branches leaves in the worktree."""
    words = [word for option in options for word in ("-X", option)]
    for command in (
        ["checkout", "-q", "-f", "-B", "result", heads[0]],
        ["merge", "-q", "--no-ff", "-s", "theta", *words, "-m", "merge", *heads[1:]],
    ):
        subprocess.run(["git", *command], cwd=repository, check=True, capture_output=True, text=True)
    return repository / FILE


def tensors(file: Path) -> Iterator[tuple[str, Floats]]:
    """The parameters of a checkpoint, by name, in float64."""
    source = BytesSource(file.read_bytes())
    for located in formats.locate(source)[1]:
        kind = located.tensor.dtype
        data = source.read(located.offset, located.tensor.nbytes)
        yield located.name, widen(np.frombuffer(data, TYPES[kind.size]), kind.name)


def difference(directory: Path, one: Path, other: Path, dtype: str) -> str:
    inputs = [dict(tensors(directory / name / FILE)) for name in (SEED, *EXPERTS)]
    found, expected = dict(tensors(one)), dict(tensors(other))
    differing = elements = 0
    worst, where = 0.0, ""
    for name, numbers in found.items():
        largest = np.maximum.reduce([np.abs(model[name]) for model in inputs])
        place = np.exp2(np.floor(np.log2(np.where(largest == 0, 1.0, largest))) - MANTISSA[dtype])
        apart = np.abs(numbers - expected[name]) / place
        differing, elements = differing + int(np.count_nonzero(apart)), elements + len(apart)
        if apart.max() > worst:
            worst, where = float(apart.max()), name
    return f"{differing / elements:.2%} | {worst:.3g}{f' ({where})' if worst > 2 else ''}"


# -- TIES in bfloat16 ------------------------------------------------------------------------------------------------


def errors(directory: Path, repository: Path, python: Path) -> None:
    """Print how far the merged task vectors of bfloat16 models are from TIES in float64. Elements at a threshold are
    left out: mergekit takes as many of them as it still needs, in any order."""
    told: dict[str, object] = {"merge_method": "ties", "base_model": str(directory / SEED)}
    told["models"] = [{"model": str(directory / name), "parameters": {"weight": 1.0}} for name in EXPERTS]
    told["parameters"] = {"density": DENSITY}
    pairs = []
    for label, kinds in (("bfloat16", {}), ("float32", {"out_dtype": "bfloat16"})):
        config = directory / f"{label}.yml"
        config.write_text(json.dumps({**told, "dtype": label, **kinds}))
        pairs.append((str(config), str(directory / f"ties-{label}")))
    run(python, pairs)
    merged = ours(repository, EXPERTS, ["method=ties", f"density={DENSITY}"])
    files = {"git-theta-btm": merged} | {
        f"mergekit, dtype {label}": directory / f"ties-{label}" / FILE for label in ("bfloat16", "float32")
    }
    results = {label: dict(tensors(file)) for label, file in files.items()}
    inputs = [dict(tensors(directory / name / FILE)) for name in (SEED, *EXPERTS)]
    squares = dict.fromkeys([*files, "the correctly rounded result"], 0.0)
    wrong = dict.fromkeys(squares, 0)
    whole, elements = 0.0, 0
    for name, base in inputs[0].items():
        delta, clear = ties(base, [model[name] for model in inputs[1:]])
        rounded = widen(narrow(base + delta, "BF16"), "BF16")
        whole, elements = whole + float((delta[clear] ** 2).sum()), elements + int(clear.sum())
        for label in squares:
            result = results[label][name] if label in results else rounded
            squares[label] += float(((result - base - delta)[clear] ** 2).sum())
            wrong[label] += int((result != rounded)[clear].sum())
    print("\n| TIES in BF16 | error of the merged task vector | elements not correctly rounded |\n|---|---|---|")
    for label, square in squares.items():
        print(f"| {label} | {(square / whole) ** 0.5:.2%} | {wrong[label] / elements:.2%} |")


def ties(base: Floats, tips: Sequence[Floats]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The merged task vector by arXiv:2306.01708, and where no magnitude is at a threshold."""
    clear, kept = np.ones(base.shape, bool), []
    for tip in tips:
        delta = tip - base
        magnitude = np.abs(delta)
        low = np.partition(magnitude, len(base) - max(1, int(DENSITY * len(base))))[-max(1, int(DENSITY * len(base)))]
        clear &= magnitude != low
        kept.append(np.where(magnitude < low, 0.0, delta))
    sign = np.where(sum(kept) >= 0, 1.0, -1.0)
    agreeing = [delta * sign > 0 for delta in kept]
    count = np.maximum(sum(agree.astype(float) for agree in agreeing), 1.0)
    return sum(np.where(agree, delta, 0.0) for agree, delta in zip(agreeing, kept, strict=True)) / count, clear

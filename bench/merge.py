"""Merging side by side: git-theta-btm, mergekit, and a plain loop in torch.

    python bench/merge.py --work DIRECTORY             # 500 MiB, and 2 GiB once; an hour and 20 GiB of disk
    python bench/merge.py --work DIRECTORY --agree     # whether the numbers are the same, on small models; minutes
    python bench/merge.py --work DIRECTORY --mib 64 --large-mib 128 --runs 1

Ours is all of ``git merge``: merging, storing, committing, and the merged file in the worktree; each run starts from a
copy of the repository. mergekit and the loop write their file. mergekit is installed to an environment of its own in
DIRECTORY, and ``git-merge-theta`` has to be beside this Python or on PATH. Prints Markdown tables; fails if three
models of the large size take more than 1 GiB of anonymous memory.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from agreement import EXPERTS, FILE, SEED, compare, mergekit, versions
from core import FILTERS, compiled, new_repository, version

from git_theta_btm.floats import narrow

LAYERS, HEAD, SIGMA = 16, 64, 0.02
LIMIT = 1 << 30  # bytes of anonymous memory
TICK = 0.05  # seconds between looks at the memory of a command, which take time from it
METHODS = {"average": ("linear", ""), "ties": ("ties", "density: 0.2")}  # ours: mergekit's, and its options
LOOP = """
import sys, torch
from safetensors.torch import load_file, save_file
models = [load_file(path) for path in sys.argv[2:]]
mean = {name: sum(model[name].float() for model in models) / len(models) for name in models[0]}
save_file({name: tensor.to(models[0][name].dtype) for name, tensor in mean.items()}, sys.argv[1], {"format": "pt"})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=500, help="size of a model (500)")
    parser.add_argument("--large-mib", type=int, default=2048, help="size of models merged once (2048; 0: none)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool (3)")
    parser.add_argument("--dtypes", nargs="+", default=["F32", "BF16"], choices=["F32", "BF16"])
    parser.add_argument("--work", type=Path, required=True, help="where mergekit is installed and models are written")
    parser.add_argument("--agree", action="store_true", help="compare numbers instead of times")
    options = parser.parse_args()
    compiled()
    python = mergekit(options.work)
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HF_HUB_OFFLINE": "1"}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, {version('git')}, {versions(python)}")
    with tempfile.TemporaryDirectory(dir=options.work) as directory:
        if options.agree:
            for dtype in options.dtypes:
                models(Path(directory) / dtype, dtype, 1 << 20, layers=2)
                compare(Path(directory) / dtype, repository(Path(directory) / dtype), python, dtype)
            return
        print(f"{options.mib} MiB a model, medians of {options.runs} runs, warm page cache\n")
        for dtype in options.dtypes:
            side_by_side(Path(directory) / dtype, dtype, options, python)
        if options.large_mib:
            large(Path(directory) / "large", options.large_mib)


# -- models ----------------------------------------------------------------------------------------------------------


def shapes(count: int, layers: int) -> tuple[dict[str, tuple[int, ...]], dict[str, object]]:
    """The tensors of a Llama of about ``count`` parameters, and its configuration."""
    width = max(HEAD, int((0.8 * count / (10.75 * layers)) ** 0.5) // HEAD * HEAD)
    inner, narrow_width = width * 11 // 4, max(HEAD, width // 4 // HEAD * HEAD)
    vocabulary = max(HEAD, (count - layers * 11 * width * width) // (2 * width) // HEAD * HEAD)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(layers):
        attention = {"q": (width, width), "k": (narrow_width, width), "v": (narrow_width, width), "o": (width, width)}
        block = {f"self_attn.{name}_proj": shape for name, shape in attention.items()}
        block |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
        norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (width,))
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in {**block, **norms}.items()}
    found |= {"model.norm.weight": (width,), "lm_head.weight": (vocabulary, width)}
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary}
    heads = {"num_attention_heads": width // HEAD, "num_key_value_heads": narrow_width // HEAD}
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
    return found, {**kind, **sizes, **heads}


def models(directory: Path, dtype: str, size: int, layers: int = LAYERS) -> None:
    """A seed, and experts a tenth of its deviation away, each in a folder as transformers has them."""
    tensors, config = shapes(size // {"F32": 4, "BF16": 2}[dtype], layers)
    for expert, name in enumerate((SEED, *EXPERTS)):
        folder = directory / name
        folder.mkdir(parents=True)
        kind = {"F32": "float32", "BF16": "bfloat16"}[dtype]
        (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": kind}))
        write(folder / FILE, tensors, dtype, expert)


def write(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str, expert: int) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + int(np.prod(shape)) * {"F32": 4, "BF16": 2}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, shape in enumerate(tensors.values()):
            numbers = np.random.default_rng([index, 0]).standard_normal(shape, np.float32) * np.float32(SIGMA)
            if len(shape) == 1:
                numbers += 1  # a norm's
            if expert:  # a cosine of 0.36 between what two experts learned
                own, shared = (
                    np.random.default_rng([index, each]).standard_normal(shape, np.float32) for each in (expert, 9)
                )
                numbers += (own * np.float32(0.8) + shared * np.float32(0.6)) * np.float32(SIGMA / 10)
            numbers.tofile(file) if dtype == "F32" else file.write(narrow(numbers, dtype).tobytes())


def repository(directory: Path) -> Path:
    """A repository with a branch for each expert; the first one's is checked out."""
    path = directory / "repository"
    git = new_repository(path, "theta", FILTERS["theta"])
    (path / ".gitattributes").write_text("*.safetensors filter=theta merge=theta -text\n")
    git("add", ".gitattributes")
    for name in (SEED, *EXPERTS):
        git("checkout", "-q", *([] if name == SEED else ["-b", name, SEED]))
        shutil.copyfile(directory / name / FILE, path / FILE)
        time.sleep(0.1)  # git and we both distrust a file that was written in the same tick as it is read
        git("add", FILE)
        git("commit", "-qm", name)
    git("checkout", "-q", EXPERTS[0])
    return path


# -- costs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall time, the most anonymous memory that all processes of a command had together (sampled), and the largest
    resident size of any of them, mapped files included."""

    seconds: float
    anonymous: int
    resident: int


def metered(command: Sequence[str | Path], cwd: Path) -> Cost:
    """What a command costs. It must not fail."""
    os.sync()
    peak, start = 0, time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    os.set_blocking(process.stderr.fileno(), False)
    words = b""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        words += process.stderr.read() or b""
        if pid:
            break
        peak = max(peak, sum(map(anonymous, tree(process.pid))))
        time.sleep(TICK)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} failed:\n{words.decode(errors='replace')}")
    return Cost(seconds, peak, usage.ru_maxrss << 10)


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    try:
        files = [f"/proc/{pid}/task/{thread}/children" for thread in os.listdir(f"/proc/{pid}/task")]
        children = [child for file in files for child in Path(file).read_text().split()]
    except OSError:  # it has ended
        return
    for child in children:
        yield from tree(int(child))


def anonymous(pid: int) -> int:
    """Bytes of memory of a process that are no file's; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


# -- tables ----------------------------------------------------------------------------------------------------------


def side_by_side(directory: Path, dtype: str, options: argparse.Namespace, python: Path) -> None:
    """Print a row for each merge."""
    models(directory, dtype, options.mib << 20)
    origin = repository(directory)
    print(f"| {dtype} | git-theta-btm | mergekit | torch loop | ratio | memory: ours | mergekit | torch loop |")
    print("|---|---|---|---|---|---|---|---|")
    for method in METHODS:
        for count in (2, 3):
            jobs: dict[str, Callable[[], Cost]] = {
                "ours": lambda m=method, n=count: ours(origin, m, n),  # type: ignore[misc]
                "mergekit": lambda m=method, n=count: theirs(directory, python, dtype, (m, n)),  # type: ignore[misc]
            }
            if method == "average":
                jobs["torch"] = lambda n=count: loop(directory, n)  # type: ignore[misc]
            costs: dict[str, list[Cost]] = defaultdict(list)
            for _ in range(options.runs):
                for tool, job in jobs.items():
                    costs[tool].append(job())
            print(row(f"{method}, {count} models", costs), flush=True)
    print("\nMemory: anonymous, of all processes together / largest resident size of one.\n")
    shutil.rmtree(directory)


def row(label: str, costs: dict[str, list[Cost]]) -> str:
    def median(tool: str, field: str) -> float:
        return float(statistics.median(getattr(cost, field) for cost in costs[tool]))

    tools = ("ours", "mergekit", "torch")
    times = [f"{median(tool, 'seconds'):.2f} s" if tool in costs else "" for tool in tools]
    sizes = [
        f"{median(tool, 'anonymous') / 1e6:.0f} / {median(tool, 'resident') / 1e6:.0f} MB" if tool in costs else ""
        for tool in tools
    ]
    ratio = median("ours", "seconds") / median("mergekit", "seconds")
    return f"| {label} | {' | '.join(times)} | {ratio:.2f} | {' | '.join(sizes)} |"


def large(directory: Path, mib: int) -> None:
    """Merge three large models once. Ends the program if that takes too much memory."""
    models(directory, "F32", mib << 20)
    origin = repository(directory)
    worst = 0
    print(f"| F32, {mib} MiB, 3 models | seconds | anonymous memory | largest resident size |\n|---|---|---|---|")
    for method in METHODS:
        cost = ours(origin, method, 3)
        worst = max(worst, cost.anonymous)
        sizes = f"{cost.anonymous / 1e6:.0f} MB | {cost.resident / 1e6:.0f} MB"
        print(f"| {method} | {cost.seconds:.1f} | {sizes} |", flush=True)
    if worst > LIMIT:
        sys.exit(f"{worst / 1e6:.0f} MB of memory are more than {LIMIT / 1e6:.0f}")


def ours(origin: Path, method: str, count: int) -> Cost:
    """A merge in a copy of the repository. Objects never change, so they are linked."""
    copy = origin.with_name("copy")
    shutil.copytree(origin, copy, copy_function=_linked)
    subprocess.run(["git", "status", "--short"], cwd=copy, check=True)  # a copy's times are new to the index
    options = ["-X", f"method={method}", *(["-X", "density=0.2"] if method == "ties" else [])]
    cost = metered(["git", "merge", "--no-ff", "-s", "theta", *options, "-m", "merge", *EXPERTS[1:count]], copy)
    shutil.rmtree(copy)
    return cost


def _linked(old: str, new: str) -> None:
    (os.link if "/objects/" in old else shutil.copy2)(old, new)


def theirs(directory: Path, python: Path, dtype: str, what: tuple[str, int]) -> Cost:
    (method, parameters), out = METHODS[what[0]], directory / "merged"
    kind = {"F32": "float32", "BF16": "bfloat16"}[dtype]
    lines = [f"merge_method: {method}", f"dtype: {kind}", *([f"base_model: {directory / SEED}"] if parameters else [])]
    lines += ["models:"]
    for name in EXPERTS[: what[1]]:
        options = ", ".join(filter(None, ("weight: 1.0", parameters)))
        lines.append(f"  - {{model: {directory / name}, parameters: {{{options}}}}}")
    (directory / "config.yml").write_text("\n".join(lines))
    cost = metered([python.with_name("mergekit-yaml"), directory / "config.yml", out, "--quiet"], directory)
    shutil.rmtree(out)
    return cost


def loop(directory: Path, count: int) -> Cost:
    files = [directory / name / FILE for name in EXPERTS[:count]]
    return metered([sys.executable, "-c", LOOP, directory / "looped", *files], directory)


if __name__ == "__main__":
    main()

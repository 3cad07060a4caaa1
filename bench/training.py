"""The models that the storage benchmark stores: a seed, three experts branched from it, their average, what came after.

A small GPT-2 is trained on text that a Debian machine with Python has, in float32 with AdamW, always from the same
random numbers. Every version is written three ways: as F32 and BF16 safetensors, and some also with their optimizer.
"""

from __future__ import annotations

import gzip
import random
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import safetensors.torch
import tokenizers
import torch
import transformers

from git_theta_btm import formats
from git_theta_btm.layout import Located
from git_theta_btm.source import BytesSource
from git_theta_btm.updates import Span
from git_theta_btm.updates.linear import predict

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
PLACES = {  # of each domain: folders, and which files below them
    "code": ((sysconfig.get_paths()["stdlib"],), ("*.py",)),
    "legal": (("/usr/share/common-licenses", "/usr/share/doc"), ("common-licenses/*", "copyright")),
    "docs": (("/usr/share/man", sysconfig.get_paths()["purelib"]), ("man?/*.gz", "METADATA", "*.rst")),
}
WINDOW, BATCH = 128, 4  # tokens of a sample, samples of a step


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the model: ``steps`` of training on ``domain`` away from the ``parent``."""

    name: str
    branch: str
    parent: str
    steps: int
    optimizer: bool = False  # whether it is also saved with its optimizer


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is trained. Learning rates are peaks: warmed up, then cosine to a tenth of it by the branch's end."""

    layers: int = 6
    width: int = 384
    vocabulary: int = 4096
    megabytes: float = 3.0
    seed_steps: int = 250
    scale: float = 1.0  # of the experts' steps
    seed_rate: float = 1e-3
    rate: float = 3e-4


QUICK = Plan(layers=3, width=192, vocabulary=1024, megabytes=0.5, seed_steps=60, scale=0.25)
EXPERTS = {"code": (55, 55, 55, 55), "legal": (40, 40, 40, 40), "docs": (20, 55, 55)}
MERGE = "merge"
AFTER = (30, 40, 40)  # steps between the versions that follow the merge


def history(plan: Plan) -> Iterator[Version]:
    """All versions in the order in which they come about: sixteen."""
    yield Version("seed", "main", "", plan.seed_steps, optimizer=True)
    for domain, steps in EXPERTS.items():
        yield from _line(domain, "seed", [max(1, round(plan.scale * count)) for count in steps])
    yield Version(MERGE, "main", "", 0)
    yield from _line("main", MERGE, [max(1, round(plan.scale * count)) for count in AFTER])


def _line(branch: str, start: str, steps: Sequence[int]) -> Iterator[Version]:
    names = [start, *(f"{branch}-{number}" for number in range(1, len(steps) + 1))]
    for parent, name, count in zip(names, names[1:], steps, strict=False):
        yield Version(name, branch, parent, count, optimizer=branch == "code")


def tips() -> list[str]:
    """The versions whose uniform average is the merge."""
    return [f"{domain}-{len(steps)}" for domain, steps in EXPERTS.items()]


def prepare(work: Path, plan: Plan) -> None:
    """Train what is not in ``work`` yet; a few minutes."""
    complete = work / "complete"
    if complete.exists() and complete.read_text() == repr(plan):
        return
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)  # the order of sums, and so the bits, depend on it; two would wait for each other
    complete.unlink(missing_ok=True)
    trainer = Trainer(work, plan)
    versions = list(history(plan))
    trainer.run(versions[:1], list(PLACES), plan.seed_rate)
    for domain in EXPERTS:
        trainer.run([version for version in versions if version.branch == domain], [domain], plan.rate)
    for dtype in DTYPES:
        average([work / f"{tip}.{dtype}" for tip in tips()], work / f"{MERGE}.{dtype}")
    after = [version for version in versions if version.branch == "main" and version.steps][1:]
    trainer.run(after, list(PLACES), plan.rate)
    complete.write_text(repr(plan))


class Trainer:
    """Trains lines of versions and writes each into ``work`` as ``NAME.F32``, ``NAME.BF16`` and ``NAME.pt``."""

    def __init__(self, work: Path, plan: Plan) -> None:
        self._work, self._plan = work, plan
        texts = {domain: list(_texts(*places, int(plan.megabytes * 1e6))) for domain, places in PLACES.items()}
        tokenizer = tokenizers.ByteLevelBPETokenizer()
        everything = chain.from_iterable(texts.values())
        tokenizer.train_from_iterator(everything, vocab_size=plan.vocabulary, show_progress=False)
        self._tokens = {
            domain: torch.tensor([token for item in tokenizer.encode_batch(parts) for token in item.ids])
            for domain, parts in texts.items()
        }

    def run(self, line: Sequence[Version], domains: Sequence[str], rate: float) -> None:
        """Train one line of versions, each from where the one before it ended."""
        torch.manual_seed(len(line[0].name))
        model = self._model(line[0].parent)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
        total = sum(version.steps for version in line)
        warm = max(1, total // 10)
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=warm),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warm, rate / 10),
            ],
            [warm],
        )
        for version in line:
            loss = 0.0
            for step in range(version.steps):
                ids = self._batch(domains[step % len(domains)])
                optimizer.zero_grad()
                output = model(input_ids=ids, labels=ids)
                output.loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                loss = output.loss.item()
            print(f"trained {version.name}: {version.steps} steps, loss {loss:.2f}", file=sys.stderr, flush=True)
            self._save(version, model, optimizer)

    def _model(self, parent: str) -> torch.nn.Module:
        plan = self._plan
        config = transformers.GPT2Config(
            vocab_size=plan.vocabulary,
            n_positions=WINDOW,
            n_embd=plan.width,
            n_layer=plan.layers,
            n_head=6,
            bos_token_id=None,
            eos_token_id=None,
        )
        model = transformers.GPT2LMHeadModel(config)
        if parent:
            model.load_state_dict(safetensors.torch.load_file(self._work / f"{parent}.F32"), strict=False)
        trained: torch.nn.Module = model.train()
        return trained

    def _batch(self, domain: str) -> torch.Tensor:
        tokens = self._tokens[domain]
        starts = torch.randint(len(tokens) - WINDOW, (BATCH,))
        return torch.stack([tokens[start : start + WINDOW] for start in starts.tolist()])

    def _save(self, version: Version, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        weights = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}  # tied
        for dtype, kind in DTYPES.items():
            rounded = {name: weight.to(kind).contiguous() for name, weight in weights.items()}
            safetensors.torch.save_file(rounded, self._work / f"{version.name}.{dtype}", {"format": "pt"})
        if version.optimizer:
            state = {"model": weights, "optimizer": optimizer.state_dict(), "step": version.steps}
            torch.save(state, self._work / f"{version.name}.pt")


def average(files: Sequence[Path], out: Path) -> None:
    """The uniform average of checkpoints with one layout, computed as our own merge does it."""
    sources = [BytesSource(file.read_bytes()) for file in files]
    merged = bytearray(files[0].read_bytes())
    for located in formats.locate(sources[0])[1]:
        merged[located.offset : located.end] = average_of(located, sources)
    out.write_bytes(merged)


def average_of(located: Located, sources: Sequence[BytesSource]) -> bytes:
    """One tensor of the average."""
    tensor = located.tensor
    bases = [BytesSource(source.read(located.offset, tensor.nbytes)) for source in sources]
    values = predict(Span(0, tensor.nbytes, tensor.dtype.size), bases, recipe(tensor.dtype.name, len(sources)))
    return values.tobytes()


def recipe(dtype: str, count: int) -> dict[str, object]:
    """The parameters of a uniform average of ``count`` tensors."""
    return {"dtype": dtype, "weights": [(1 / count).hex()] * count}


def _texts(folders: Sequence[str], patterns: Sequence[str], wanted: int) -> Iterator[str]:
    """Files in a fixed random order, about ``wanted`` bytes of them."""
    found = {file for folder in folders for file in Path(folder).rglob("*") if any(map(file.match, patterns))}
    files = sorted(file for file in found if file.is_file())
    random.Random(0).shuffle(files)
    for file in files:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data)[: 64 << 10].decode(errors="replace")
        yield text
        wanted -= len(text)
        if wanted < 0:
            return
    sys.exit(f"too little text to train on in {', '.join(folders)}")

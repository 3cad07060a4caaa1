"""How fast one core turns a tensor into what is stored and back, and how small it gets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rivals import tensors

from git_theta_btm.encoded import CHUNK
from git_theta_btm.floats import MANTISSA
from git_theta_btm.planes import Values
from git_theta_btm.residual import decode, encode

RUNS = 3
PAIRS = {"alone": ("seed", ""), "first of an expert": ("code-1", "seed"), "consecutive": ("code-3", "code-2")}
ALONE = {"BF16": 0.67, "F32": 0.84}  # what a tensor alone is to shrink to


def speeds(work: Path) -> None:
    """Print a table for the versions in ``work``. GB/s are of bytes before compression."""
    print("| one core | ratio | encode | decode | target |\n|---|---|---|---|---|")
    for dtype in ALONE:
        for label, (name, base) in PAIRS.items():
            for mode, group in (("fast", None), ("small", MANTISSA[dtype])) if base else (("dense", None),):
                pair = flat(work / f"{name}.{dtype}"), flat(work / f"{base}.{dtype}") if base else None
                ratio, coding, decoding = codec(*pair, group)
                target = "" if base else f"{ALONE[dtype]}: {'held' if ratio <= ALONE[dtype] else 'missed'}"
                row = f"{ratio:.3f} | {coding:.2f} GB/s | {decoding:.2f} GB/s | {target}"
                print(f"| {dtype}, {label}, {mode} | {row} |")
    print(flush=True)


def flat(file: Path) -> Values:
    """All tensors of a checkpoint in one array."""
    return np.concatenate([values for _, values in tensors(file)])


def codec(values: Values, base: Values | None, group: int | None) -> tuple[float, float, float]:
    """Ratio, and the speed of encoding and of decoding in GB/s, chunk by chunk as the filters do it."""
    count = CHUNK // values.itemsize
    chunks = [slice(start, start + count) for start in range(0, len(values), count)]
    bases = [base[chunk] if base is not None else None for chunk in chunks]
    payloads = [encode(values[chunk], old, group) for chunk, old in zip(chunks, bases, strict=True)]

    def encode_all() -> None:
        for chunk, old in zip(chunks, bases, strict=True):
            encode(values[chunk], old, group)

    def decode_all() -> None:
        for chunk, old, payload in zip(chunks, bases, payloads, strict=True):
            decode(payload, old, group, (values.itemsize, len(values[chunk])))

    ratio = sum(map(len, payloads)) / values.nbytes
    return ratio, values.nbytes / 1e9 / seconds(encode_all), values.nbytes / 1e9 / seconds(decode_all)


def seconds(job: Callable[[], None]) -> float:
    """Median processor time of one thread: what others do on the machine counts least this way."""
    times = []
    for _ in range(RUNS):
        start = time.thread_time()
        job()
        times.append(time.thread_time() - start)
    return statistics.median(times)

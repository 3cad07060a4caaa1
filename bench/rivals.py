"""Other ways to store the versions of a model: how many bytes each would take for the same files.

hf_xet is the real client with a store on this disk. The others are written here, as strong as their descriptions allow:
whatever a method cannot make smaller it keeps as it is, every distinct tensor is stored once, and what is not in a
tensor is counted raw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import hf_xet  # type: ignore[import-untyped]
import numpy as np
import zstandard

from git_theta_btm import formats
from git_theta_btm.filters.encode import width_of
from git_theta_btm.planes import TYPES, Values
from git_theta_btm.residual import encode
from git_theta_btm.source import BytesSource

PLANES = "byte planes + zstd, no delta (as ZipNN)"
BITX = "BitX (ZipLLM): XOR with the seed"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Versions in the order in which they come about, the seed first, and which one each was made from."""

    files: tuple[Path, ...]
    parents: Mapping[Path, Path]

    @property
    def seed(self) -> Path:
        return self.files[0]


def copies(lineage: Lineage) -> int:
    """Every version whole."""
    return sum(file.stat().st_size for file in lineage.files)


def deduplicated(lineage: Lineage) -> int:
    """Every distinct tensor once."""
    return _stored(lineage, lambda values, _: values.nbytes)


def zstd(lineage: Lineage) -> int:
    """``zstd -3`` of each file."""
    return sum(len(zstandard.compress(file.read_bytes(), 3)) for file in lineage.files)


def xet(lineage: Lineage) -> int:
    """Hugging Face's storage: chunks of about 64 KiB where the content says so, each compressed, each once."""
    with TemporaryDirectory(dir=lineage.seed.parent) as store:
        for file in lineage.files:
            with hf_xet.XetSession().new_upload_commit(endpoint=f"local://{store}") as commit:
                commit.start_upload_file(str(file))
        return sum(file.stat().st_size for file in Path(store).glob("xet/xorbs/xorbs/*"))


def planes(lineage: Lineage) -> int:
    """Our own byte planes, every tensor alone; ZipNN (arXiv:2411.05239) is as small."""
    return _stored(lineage, lambda values, _: _alone(values))


def bitx(lineage: Lineage) -> int:
    """ZipLLM (arXiv:2505.06252): the seed's tensors alone, every other XORed with the seed's of the same name."""
    return _stored(lineage, _exclusive, lambda file: None if file == lineage.seed else lineage.seed)


def bitx_chain(lineage: Lineage) -> int:
    """The same XOR, with the version that each was made from: more than ZipLLM does."""
    return _stored(lineage, _exclusive, lineage.parents.get)


METHODS: Mapping[str, Callable[[Lineage], int]] = {
    "tensor deduplication alone": deduplicated,
    "zstd -3 of each file": zstd,
    "Xet (hf_xet, local store)": xet,
    PLANES: planes,
    BITX: bitx,
    "the same XOR with the parent": bitx_chain,
}


def _stored(
    lineage: Lineage,
    cost: Callable[[Values, Values | None], int],
    base_of: Callable[[Path], Path | None] = lambda _: None,
) -> int:
    seen: set[bytes] = set()
    total = 0
    for file in lineage.files:
        base = base_of(file)
        known = dict(tensors(base)) if base else {}
        rest = file.stat().st_size
        for name, values in tensors(file):
            rest -= values.nbytes
            digest = sha256(values.data).digest()
            if digest not in seen:
                seen.add(digest)
                total += min(values.nbytes, cost(values, known.get(name)))
        total += rest
    return total


def tensors(file: Path) -> Iterator[tuple[str, Values]]:
    """The tensors of a checkpoint as bit patterns, by name."""
    source = BytesSource(file.read_bytes())
    for located in formats.locate(source)[1]:
        data = source.read(located.offset, located.end - located.offset)
        yield located.name, np.frombuffer(data, TYPES[width_of(located.tensor)])


def _alone(values: Values) -> int:
    return len(encode(values, None))


def _exclusive(values: Values, base: Values | None) -> int:
    """As the paper has it: the exponents in a stream of their own, zstd for each stream; ZipNN where that is smaller.

    The sign and mantissa of wider floats are split further, into bytes, which only makes them smaller.
    """
    alone = _alone(values)
    if base is None or base.shape != values.shape:
        return alone
    difference = values ^ base
    bits = 8 * values.itemsize
    rotated = (difference << 1) | (difference >> (bits - 1))
    streams = rotated.view(np.uint8).reshape(-1, values.itemsize).T
    return min(alone, sum(len(zstandard.compress(stream.tobytes(), 3)) for stream in streams))

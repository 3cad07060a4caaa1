"""Text that most machines have, by domain: what the benchmarks of Branch-Train-Merge train on."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_LIBRARY = sysconfig.get_paths()["stdlib"]
_PACKAGES = sysconfig.get_paths()["purelib"]
_LONGEST = 40_000  # characters of one file: none is a domain by itself
_PIECE = 3_000  # characters of a document: so that there are enough to be split into three parts
_SHORTEST = 400

# Globs, in order of preference; gzipped files are read through.
DOMAINS: dict[str, tuple[str, ...]] = {
    "python": (f"{_LIBRARY}/*.py", f"{_LIBRARY}/[a-s]*/*.py"),
    "c": ("/usr/include/linux/*.h", "/usr/include/*.h", "/usr/include/*/*.h", f"{_PACKAGES}/torch/include/**/*.h"),
    "legal": ("/usr/share/common-licenses/*", "/usr/share/doc/*/copyright", f"{_PACKAGES}/**/LICENSE*"),
    "manual": ("/usr/share/man/man[1-8]/*.gz",),
    "perl": ("/usr/share/perl/*/**/*.pm", "/usr/share/perl5/**/*.pm", "/usr/lib/*/perl/**/*.pm"),
    "vim": ("/usr/share/vim/*/**/*.vim",),
    "rst": ("/usr/share/doc/**/*.rst", f"{_PACKAGES}/**/*.rst", f"{_PACKAGES}/*/METADATA"),
    "changes": ("/usr/share/doc/*/changelog*.gz", "/usr/share/doc/*/NEWS*.gz"),
}


def documents(domain: str, limit: int) -> Iterator[str]:
    """Documents of a domain, in an order of their own, of ``limit`` characters in all at most; each text once."""
    left, seen = limit, set()
    for pattern in DOMAINS[domain]:
        names = sorted(glob.glob(pattern, recursive=True), key=lambda name: hashlib.sha256(name.encode()).digest())
        for name in names:
            text = _read(name)[:_LONGEST]
            key = hashlib.sha256(text.encode()).digest()
            if len(text) < _SHORTEST or key in seen:
                continue
            seen.add(key)
            for start in range(0, len(text), _PIECE):
                yield text[start : start + _PIECE][:left]
                left -= min(_PIECE, len(text) - start)
                if left <= 0:
                    return


def _read(name: str) -> str:
    try:
        data = gzip.decompress(Path(name).read_bytes()) if name.endswith(".gz") else Path(name).read_bytes()
        return data.decode("utf-8")
    except (OSError, ValueError, EOFError):
        return ""


def write(directory: str, limit: int, domains: list[str]) -> dict[str, int]:
    """One JSONL file for each domain; the characters of each."""
    os.makedirs(directory, exist_ok=True)
    sizes = {}
    for domain in domains:
        texts = list(documents(domain, limit))
        Path(directory, f"{domain}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        sizes[domain] = sum(map(len, texts))
    return sizes


if __name__ == "__main__":
    print(json.dumps(write(sys.argv[1], int(sys.argv[2]), sys.argv[3:] or list(DOMAINS))))

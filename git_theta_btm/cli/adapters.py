"""``git theta merge-adapters``."""

from __future__ import annotations

import click

from ..merging.adapters import MergedAdapter
from ..merging.adapters import merge_adapters as merge
from .console import as_json, dump, number, say, shown
from .weights import weights_option


@click.command("merge-adapters")
@click.argument("folders", nargs=-1, required=True, metavar="[REV:]DIR...")
@click.option("--out", required=True, metavar="DIR", help="The adapter to make.")
@weights_option
@click.option("--rank", type=click.IntRange(min=1), help="Cut the sum down to this rank.")
@as_json
def merge_adapters(
    folders: tuple[str, ...], *, out: str, weights: tuple[float, ...], rank: int | None, as_json: bool
) -> None:
    """Merge LoRA adapters into one.

    Each DIR is an adapter as PEFT saves it, with safetensors, or REV:DIR, one in a commit; so is the new one. What it
    does is exactly the sum of what they do, each times its weight, which is taken as it is, or 1/N. They may differ in
    rank, alpha and the modules that they adapt. Its rank is the sum of theirs; with --rank it is cut down to the
    largest singular values, and the share of the sum's norm that is lost is printed.

    \b
    Example:
      git theta merge-adapters legal/ medical/ --weights 0.7,0.3 --out both/
      git theta merge-adapters legal:adapter medical:adapter --out both/
    """
    made = merge(folders, out, weights, rank)
    if as_json:
        dump(out=out, modules=made.ranks, exact=made.exact, lost=made.lost)
        return
    say(f"{shown(out)}: {number(len(folders), 'adapter')} merged, {_ranks(made)}, {_verdict(made)}")


def _ranks(made: MergedAdapter) -> str:
    low, high = min(made.ranks.values()), max(made.ranks.values())
    return f"{number(len(made.ranks), 'module')} of rank {high if low == high else f'{low} to {high}'}"


def _verdict(made: MergedAdapter) -> str:
    return "exact" if made.exact else f"{made.lost:.2%} of the norm lost"

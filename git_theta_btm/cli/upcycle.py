"""``git theta upcycle``."""

from __future__ import annotations

import dataclasses
from typing import get_args

import click

from ..merging.upcycling import Router, Routing
from ..merging.upcycling import upcycle as make
from .console import as_json, dump, number, say, shown, size
from .weights import weights_option


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--out", required=True, metavar="DIR", help="The model to make.")
@weights_option
@click.option("--top-k", default=2, show_default=True, help="Experts that each token is sent to.")
@click.option("--router", type=click.Choice(get_args(Router)), default="random", show_default=True, help="Its start.")
@click.option("--seed", default=0, show_default=True, help="Of the random router.")
@as_json
def upcycle(  # noqa: PLR0913 - one for each option
    folders: tuple[str, ...],
    *,
    out: str,
    weights: tuple[float, ...],
    top_k: int,
    router: Router,
    seed: int,
    as_json: bool,
) -> None:
    """Make a mixture-of-experts model of dense ones.

    Each DIR is a Llama or Mistral model as transformers saves it, with safetensors, and all are trained from one seed.
    Their feed-forward blocks become the experts of a Mixtral model; all other weights are averaged, with the weights
    given. The router is new and has to be trained: this is Branch-Train-MiX (arXiv:2403.07816). A router of zeros
    sends every token to the first experts, until it is trained. The tokenizer is that of the first.

    \b
    Example:
      git theta upcycle legal/ medical/ code/ --out mixture/
    """
    made = make(folders, out, weights, Routing(top_k, router, seed))
    if as_json:
        dump(out=out, **dataclasses.asdict(made))
        return
    parts = f"{number(made.experts, 'expert')} in {number(made.layers, 'layer')}, {made.elements} parameters"
    say(f"{shown(out)}: {parts}, {size(made.size)}; its router is not trained yet")

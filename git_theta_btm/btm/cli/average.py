"""``git btm average``."""

from __future__ import annotations

import os

import click

from ...cli.console import Meter, number, say, shown, size
from ...errors import UsageError
from ...merging.reading import from_pairs
from ...repository import Repository
from .. import averaging
from ..places import PRIORS

_PRIOR = "prior:"


@click.command()
@click.argument("words", nargs=-1, required=True, type=click.Path(), metavar="FILE_OR_REV...")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help="The checkpoint to write, in the format of the first.",
)
@click.option(
    "--weights",
    type=click.Path(),
    metavar="W,W,...",
    help="One for each, uniform, a file, or prior:NAME of priors/NAME.json.",
)
@click.option("--layer-weights", default="", metavar="LAYERS=W,...", help="The first one's weight in some layers.")
@click.option("--strategy", metavar="NAME", help="How to merge, as in git theta merge; average if left out.")
@click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the strategy.")
@click.option(
    "--base",
    type=click.Path(),
    metavar="FILE_OR_REV",
    help="What all were trained from, for strategies that need it.",
)
@click.option("--rule", "rules", multiple=True, metavar="'GLOB STRATEGY ...'", help="Other ways for some parameters.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Parameters that stay the first one's.")
@click.option("--missing", metavar="error|ours|any", help="What becomes of parameters that some have not.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def average(words: tuple[str, ...], *, out: str, layer_weights: str, force: bool, **given: object) -> None:
    """Average checkpoint files, or commits, into one file; no repository is needed for files.

    Parameters are matched by name. Weights count as shares of their sum. What is no parameter of the model (arguments,
    optimizer state) is the first file's, and integers have to be the same in all. A revision stands for its
    model/model.safetensors, REV:PATH for any other; an expert that is an adapter has to be applied first. The file
    appears whole or not at all.

    \b
    Example:
      git btm average a.pt b.pt --weights .1,.9 --out merged.pt
      git btm average a.pt b.pt --weights 0,1 --layer-weights 'layers.0-3=.2,layers.4-=.8' --out merged.pt
      git btm average legal medical --weights prior:reviews --out merged.safetensors
    """
    meter = Meter("averaging")
    draft = from_pairs(_pairs(given))
    made = averaging.average(averaging.Order(words, out, draft, layer_weights, force), meter)
    meter.end()
    if made.shares:
        say(f"the weights do not sum to 1: they count as {', '.join(f'{share:.4g}' for share in made.shares)}")
    parts = f"{number(made.computed, 'parameter')} computed, {made.taken} taken as they are"
    say(f"{shown(out)}: {parts}, {size(made.size)}")


def _pairs(given: dict[str, object]) -> list[tuple[str, str]]:
    """What the options say, as keys and values of a recipe."""
    pairs = [(key, str(given[key])) for key in ("strategy", "base", "missing") if given[key] is not None]
    if given["weights"] is not None:
        pairs.append(("weights", _weights(str(given["weights"]))))
    for key, values in (("rule", given["rules"]), ("exclude", given["exclude"])):
        pairs += [(key, value) for value in values]  # type: ignore[attr-defined]
    for option in given["options"]:  # type: ignore[attr-defined]
        key, sign, value = option.partition("=")
        if not sign:
            raise UsageError(f"-o {option!r} has to be KEY=VALUE")
        pairs.append((key, value))
    return pairs


def _weights(text: str) -> str:
    if not text.startswith(_PRIOR):
        return text
    root = Repository().worktree()
    return os.path.join(root, PRIORS, f"{text.removeprefix(_PRIOR)}.json")

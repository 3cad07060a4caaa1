"""``git btm import``."""

from __future__ import annotations

import click

from ...cli.console import say
from ...repository import Repository
from .. import fairseq as fairseq_models
from .. import importing

_SHORT = 10  # hexadecimal digits of a commit


@click.group("import")
def import_() -> None:
    """Make a model that was trained elsewhere the seed.

    It becomes model/, committed on this branch with step 0, ready for git btm branch.
    """


@import_.command()
@click.argument("folder", type=click.Path(file_okay=False))
def hf(folder: str) -> None:
    """Import a folder that transformers' save_pretrained wrote.

    Weights are kept bit for bit, in one file model.safetensors; pickled ones are converted without being unpickled.
    With a tokenizer's files in it, the folder becomes the repository's tokenizer too.

    \b
    Example:
      git btm import hf ../gpt2
    """
    _done(importing.huggingface(Repository(), folder))


@import_.command()
@click.argument("path", type=click.Path(dir_okay=False), metavar="FILE.pt")
@click.option(
    "--dict",
    "dictionary",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Its dict.txt, which becomes the tokenizer.",
)
@click.option("--heads", type=click.IntRange(min=1), help="Attention heads, if the file does not say.")
@click.option("--activation", metavar="NAME", help="relu, gelu, gelu_accurate, gelu_fast or tanh.")
@click.option("--scale/--no-scale", default=None, help="Whether embeddings are scaled by the root of their width.")
@click.option("--norm-before/--norm-after", "before", default=None, help="Where each block has its layer norm.")
def fairseq(
    path: str,
    *,
    dictionary: str | None,
    heads: int | None,
    activation: str | None,
    scale: bool | None,
    **more: bool | None,
) -> None:
    """Import a language model of fairseq: OPT if its positions are learned, XGLM if they are sinusoidal.

    The file is {args, model, ...} as fairseq saves it. Only the model is taken, nothing is unpickled, and the result
    computes the same function. Options are for what the file does not say, and overrule what it does.

    \b
    Example:
      git btm import fairseq checkpoint_last.pt --dict dict.txt
    """
    options = fairseq_models.Options(heads, activation, scale, more["before"])
    _done(fairseq_models.fairseq(Repository(), path, options, dictionary))


def _done(commit: str) -> None:
    say(f"{commit[:_SHORT]} is the seed; next: git btm branch DOMAIN")


globals()["import"] = import_  # a command's function has the command's name, which is a keyword here

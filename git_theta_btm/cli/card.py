"""``git theta card``."""

from __future__ import annotations

import dataclasses
import os

import click

from ..errors import ThetaError
from ..merging.cards import card as make
from ..merging.cards import markdown
from ..repository import Repository
from .console import as_json, data, dump, say, shown


@click.command()
@click.argument("revision", default="HEAD", metavar="[REV]")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the card to this new file.")
@click.option("--base-model", "models", multiple=True, metavar="ID", help="The hub's name of an expert or of the seed.")
@as_json
def card(revision: str, *, output: str | None, models: tuple[str, ...], as_json: bool) -> None:
    """Write the model card of a merge.

    Markdown with the front matter that Hugging Face's hub reads: the merged models with their weights and what they
    were merged of themselves, the strategy with its options, the files with their digests, and how to check it all. It
    says what the merge's commit records, and nothing else. What the models are called on the hub is not recorded: say
    it by --base-model, as often as needed.

    \b
    Example:
      git theta card
      git theta card main~3 -o README.md --base-model gpt2
    """
    made = make(Repository(), revision)
    if as_json:
        dump(**dataclasses.asdict(made))
        return
    text = markdown(made, models)
    if output is None:
        data(text.removesuffix("\n"))
        return
    try:
        with open(output, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except FileExistsError:
        raise ThetaError(f"{output} is there already: remove it, or choose another name") from None
    say(f"{shown(os.path.relpath(output))}: written")

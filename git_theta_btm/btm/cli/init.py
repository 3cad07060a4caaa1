"""``git btm init``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import click

from ...cli.console import say
from ...errors import UsageError
from ...repository import Repository
from ...setup.attributes import FILE, track
from ..models import check_named
from ..places import KEPT, PATTERNS, SETTINGS
from ..settings import literal, load, write


@click.command()
@click.option(
    "--model",
    default="tiny-gpt2",
    type=click.Path(),
    metavar="PRESET|FOLDER",
    help="What the seed is: a preset or a folder.",
)
@click.option(
    "--tokenizer", default="bytes", type=click.Path(), metavar="bytes|FOLDER", help="What cuts text into tokens."
)
@click.option("--block", default=128, help="Tokens in a block.")
@click.option("--steps", default=600, help="Updates in all: the seed's and an expert's own.")
@click.option("--seed-share", default=0.5, help="The seed's share of them.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other setting, as training.batch=64.")
def init(  # noqa: PLR0913 - one for each option
    model: str, tokenizer: str, block: int, steps: int, seed_share: float, pairs: tuple[str, ...]
) -> None:
    """Make btm.toml, and have git theta track models, optimizer state and text.

    What is there already stays; options that are given change it.

    \b
    Example:
      git btm init --model tiny-gpt2 --steps 200 --set training.batch=16
    """
    repository = Repository()
    root = repository.worktree()
    context = click.get_current_context()
    given = {
        name for name in context.params if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    fresh = not os.path.exists(os.path.join(root, SETTINGS))
    changes: dict[str, object] = {"model": model} if fresh or "model" in given else {}
    sections: dict[str, dict[str, object]] = {"text": {}, "training": {}, "launch": {}}
    for name, section, value in (
        ("tokenizer", "text", tokenizer),
        ("block", "text", block),
        ("steps", "training", steps),
        ("seed_share", "training", seed_share),
    ):
        if fresh or name in given:
            sections[section][name] = value
    _set(sections, pairs)
    if "model" in changes:
        check_named(root, model)
    write(root, {**changes, **{name: values for name, values in sections.items() if values}})
    load(root)
    track(Repository(root), PATTERNS)
    _keep(os.path.join(root, FILE))
    repository.git.run("add", "--", SETTINGS, FILE)
    if not repository.git.run("diff", "--cached", "--quiet", "--", SETTINGS, FILE, check=False).returncode:
        say(f"nothing has changed: {SETTINGS} and {FILE} say all that already")
        return
    say("now: git commit -m 'Branch-Train-Merge', then git btm data add DOMAIN FILE...")


def _set(sections: Mapping[str, dict[str, object]], pairs: Iterable[str]) -> None:
    """Put ``training.batch=64`` into the sections. Raises ``UsageError``."""
    for pair in pairs:
        key, sign, value = pair.partition("=")
        section, _, name = key.rpartition(".")
        if not sign or section not in sections:
            raise UsageError(f"{pair!r} has to be like training.batch=64")
        sections[section][name] = literal(value)


def _keep(path: str) -> None:
    """Have merges keep our side of what is no model."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    if KEPT not in text.split("\n"):
        with open(path, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{KEPT}\n" if text.endswith("\n") or not text else f"\n{KEPT}\n")

"""Cards: a model card for a merge, from what its commit records. What is not recorded is not said.

Reference for the front matter: huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ThetaError
from ..repository import Repository
from . import trailers
from .heads import Trees
from .recipe import Gradient, Recipe
from .records import NONE, ByHand, Expert, Record, Taken
from .trailers import dumps
from .verifying import recorded

if TYPE_CHECKING:
    from git import Repo

_GENERATIONS = 16  # merges of merges that a card goes back to


@dataclass(frozen=True, slots=True)
class Ancestor:
    """An expert, its weight as a text, the title of its commit, and the experts that it was merged of itself."""

    name: str
    commit: str
    weight: str
    mass: float
    title: str
    experts: tuple[Ancestor, ...] = ()
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """A model file: ``digest`` names its version, and ``size`` is that of the file in bytes."""

    path: str
    format: str
    digest: str
    tensors: int
    parameters: int
    size: int


@dataclass(frozen=True, slots=True)
class Other:
    """A file that was merged in another way than the rest."""

    path: str
    strategy: str
    options: dict[str, str]


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says. ``strategy`` and ``options`` are those of all files but the ``others``."""

    commit: str
    title: str
    date: str
    base: str | None
    strategy: str
    options: dict[str, str]
    experts: tuple[Ancestor, ...]
    files: tuple[File, ...]
    trailers: tuple[str, ...]
    others: tuple[Other, ...] = ()
    taken: tuple[tuple[str, str], ...] = ()  # files that are as a commit has them, and that
    by_hand: tuple[str, ...] = ()


def card(repository: Repository, revision: str) -> Card:
    """The card of a merge. Raises ``ThetaError`` for a commit that records none."""
    commit, record = recorded(repository, revision)
    title, date = repository.git.text("log", "-1", "--format=%s%n%cI", commit).split("\n")
    from git import Repo  # 0.1 s that only reports pay

    with Repo(repository.common) as history:
        experts = tuple(_ancestors(history, record, 1))
    return Card(
        commit=commit,
        title=title,
        date=date,
        base=record.base,
        strategy=record.recipe.strategy,
        options=_options(record.recipe),
        experts=experts,
        files=tuple(_files(repository, commit)),
        trailers=tuple(dumps(record)),
        others=tuple(Other(path, found.strategy, _options(found)) for path, found in sorted(record.files.items())),
        taken=tuple((path, it.commit) for path, it in sorted(record.whole.items()) if isinstance(it, Taken)),
        by_hand=tuple(path for path, it in sorted(record.whole.items()) if isinstance(it, ByHand)),
    )


def _options(recipe: Recipe) -> dict[str, str]:
    return {name: _text(value) for name, value in recipe.options.items()}


def _ancestors(history: Repo, record: Record, generation: int) -> Iterator[Ancestor]:
    weights = record.recipe.weights or (1.0,) * len(record.experts)
    for expert, weight in zip(record.experts, weights, strict=True):
        title, before = _before(history, expert)
        known = before if generation < _GENERATIONS else None
        yield Ancestor(
            expert.name,
            expert.commit,
            _text(weight),
            expert.mass,
            title,
            tuple(_ancestors(history, known, generation + 1)) if known else (),
            known.recipe.strategy if known else "",
        )


def _before(history: Repo, expert: Expert) -> tuple[str, Record | None]:
    """The title of an expert's commit and the merge that it records; nothing of one that is not here."""
    try:
        found = history.commit(expert.commit).message
    except ValueError:  # the commit is not here, or the name is another object's
        return "", None
    message = found if isinstance(found, str) else found.decode(errors="replace")
    try:
        return message.partition("\n")[0], trailers.loads(message)
    except ThetaError:  # a trailer that somebody broke, or of a later version
        return message.partition("\n")[0], None


def _files(repository: Repository, commit: str) -> Iterator[File]:
    with repository.git.blobs() as blobs:
        trees = Trees(repository.git, blobs)
        for path, oid in sorted(trees.models(commit).items()):
            if manifest := trees.manifest(oid):
                elements = sum(entry.tensor.numel for entry in manifest.entries)
                count = len(manifest.entries)
                yield File(path, manifest.format, manifest.digest, count, elements, manifest.size)


def _text(value: object) -> str:
    if isinstance(value, Gradient):
        return ":".join(map(repr, value.values))
    return ",".join(map(_text, value)) if isinstance(value, tuple) else str(value)


# -- Markdown ----------------------------------------------------------------------------------------------------------


def markdown(made: Card, models: Sequence[str] = ()) -> str:
    """The card as Markdown. ``models`` are the names that the experts or their seed have on Hugging Face's hub."""
    import yaml  # 40 ms that nothing else here pays

    front: dict[str, object] = {"base_model": list(models), "base_model_relation": "merge"} if models else {}
    front["tags"] = ["merge", "git-theta-btm"]
    lines = ["---", yaml.safe_dump(front, allow_unicode=True, sort_keys=False).rstrip("\n"), "---", ""]
    lines += [f"# {_plain(made.title)}", "", *_method(made), "", *_experts(made), "", *_table(made), "", *_again(made)]
    return "\n".join(lines) + "\n"


def _method(made: Card) -> Iterator[str]:
    yield f"A merge of {len(made.experts)} models, made parameter by parameter with git-theta-btm on {made.date[:10]}."
    yield ""
    yield "## Method"
    yield ""
    yield "No file was merged by a strategy." if made.strategy == NONE else f"Strategy: `{made.strategy}`"
    if made.options:
        yield ""
        yield "| option | value |"
        yield "|---|---|"
        yield from (f"| {_cell(name)} | {_cell(value)} |" for name, value in made.options.items())
    for other in made.others:
        options = "".join(f" {name}={value}" for name, value in other.options.items())
        yield ""
        yield f"{_plain(other.path)} was merged by {_plain(other.strategy + options)}"
    for path, commit in made.taken:
        yield ""
        yield f"{_plain(path)} is as commit `{commit}` has it"
    for path in made.by_hand:
        yield ""
        yield f"{_plain(path)} was made by hand"
    if made.base:
        yield ""
        yield f"Base: commit `{made.base}`"


def _experts(made: Card) -> Iterator[str]:
    yield "## Merged models"
    yield ""
    yield "| model | commit | weight | experts in it | what it is |"
    yield "|---|---|---|---|---|"
    for expert in made.experts:
        cells = (expert.name, f"`{expert.commit}`", expert.weight, f"{expert.mass:g}", expert.title)
        yield f"| {' | '.join(map(_cell, cells))} |"
    merged = [expert for expert in made.experts if expert.experts]
    if merged:
        yield ""
        yield "Some of them are merges themselves:"
        yield ""
        for expert in merged:
            yield from _nested(expert, 0)


def _nested(expert: Ancestor, depth: int) -> Iterator[str]:
    by = f", merged by `{expert.strategy}` of:" if expert.experts else f", weight {expert.weight}" if depth else ""
    yield f"{'  ' * depth}- {_plain(expert.name)} (`{expert.commit[:12]}`){by}"
    for inner in expert.experts:
        yield from _nested(inner, depth + 1)


def _table(made: Card) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield "| file | format | tensors | parameters | bytes | digest |"
    yield "|---|---|---|---|---|---|"
    for file in made.files:
        cells = (file.path, file.format, f"{file.tensors}", f"{file.parameters}", f"{file.size}", f"`{file.digest}`")
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield ""
    yield "The digest names a version of a file: the SHA-256 of the list of its tensors, each by its own SHA-256."


def _again(made: Card) -> Iterator[str]:
    yield "## How to check it"
    yield ""
    yield f"Commit `{made.commit}` records how the models were merged:"
    yield ""
    yield "```"
    yield from made.trailers
    yield "```"
    yield ""
    yield "In a clone of its repository, this merges them again and compares every parameter:"
    yield ""
    yield "```sh"
    yield "pip install git-theta-btm"
    yield f"git theta verify {made.commit}"
    yield "```"


def _plain(text: str) -> str:
    """Text in which Markdown, and HTML in it, finds nothing to obey."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", shown)


def _cell(text: str) -> str:
    """The same for a table's cell, where code stays code."""
    return text if re.fullmatch("`[0-9a-f]+`", text) else _plain(text)

"""``git btm eval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ...cli.console import Meter, as_json, columns, data, dump, printable, say
from ...errors import ThetaError, UsageError
from ...repository import Repository
from ..settings import Settings, load

if TYPE_CHECKING:
    from ..evaluating.cells import Subject
    from ..evaluating.tables import Line

_CANNOT = 125  # what git bisect run takes as "skip this commit"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, by the names of the options."""

    data: str | None
    split: str
    matrix: bool
    history: bool
    average: str | None
    weights: str | None
    fewshot: tuple[str, ...]
    jsonl: str | None
    share: str | None
    device: str | None
    force: bool


@click.command()
@click.argument("revisions", nargs=-1, metavar="[REF]...")
@click.option("--data", metavar="D[,D]", help="Domains; without it, the model's own, or all for a seed.")
@click.option("--split", default="test", show_default=True, help="Which of a domain's texts.")
@click.option("--matrix", is_flag=True, help="Every seed and expert on every domain.")
@click.option("--history", is_flag=True, help="Every checkpoint of REF.")
@click.option("--average", metavar="A,B[,C]", help="The mean of these models, made in memory.")
@click.option("--weights", metavar="W,W", help="What each model counts in --average.")
@click.option("--below", type=float, metavar="X", help="Exit with 1 unless every perplexity is below X.")
@click.option(
    "--fewshot",
    multiple=True,
    type=click.Path(),
    metavar="TASK.yaml",
    help="A task of lm-evaluation-harness, a local file.",
)
@click.option("--jsonl", type=click.Path(dir_okay=False), metavar="FILE", help="Append results, as MDEL writes them.")
@click.option("--share", metavar="REMOTE", help="Fetch kept results from a remote first; push the new ones to it.")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1; without it a GPU if there is one.")
@click.option("--force", is_flag=True, help="Compute again what is known.")
@as_json
def eval(revisions: tuple[str, ...], *, below: float | None, as_json: bool, **options: Any) -> None:
    """Evaluate models: the perplexity of a token, by windows of btm.toml's text.block tokens.

    Without REF it is the model that is checked out. Results are kept under refs/btm/evals, by the digests of model and
    text, and never computed twice. With --below, the exit code is what git bisect run wants: 0, 1, or 125 for a commit
    that cannot be evaluated.

    \b
    Example:
      git btm eval
      git btm eval --matrix
      git btm eval legal --data legal,medical --split valid
      git bisect run git btm eval --below 12.5
    """
    request = Request(**options)
    _check(request)
    repository = Repository()
    try:
        settings = load(repository.worktree())
        _share(repository, request)
        subjects = _subjects(repository, revisions, request)
        if request.fewshot:
            _fewshot(repository, settings, subjects, request, as_json=as_json)
            return
        names, found = _evaluated(repository, settings, subjects, request)
    except (ThetaError, OSError) as error:
        if below is None:
            raise
        say(f"theta: {error}")
        click.get_current_context().exit(_CANNOT)
    _share(repository, request)
    _print(names, found, request.split, as_json=as_json)
    if request.jsonl:
        _append(request.jsonl, settings, names, found, request.split)
    if below is not None and not all(line.worst < below for line in found):
        click.get_current_context().exit(1)


def _check(request: Request) -> None:
    """Raises ``UsageError`` for an option that would have no say."""
    if request.weights and not request.average:
        raise UsageError("--weights goes with --average, whose models it weighs")
    kinds = (("--matrix", request.matrix), ("--history", request.history), ("--average", request.average))
    asked = [name for name, given in kinds if given]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} exclude each other")
    if request.fewshot and request.jsonl:
        raise UsageError("--jsonl is of perplexities, which --fewshot has none of")


def _subjects(repository: Repository, revisions: Sequence[str], request: Request) -> list[Subject]:
    from ..evaluating.cells import mean
    from ..evaluating.choosing import current, everybody, history

    if request.average:
        weights = numbers(request.weights) if request.weights else ()
        models = [mean(repository, request.average.split(","), weights)]
        return [*(current(repository, revisions) if revisions else []), *models]
    if request.history:
        return history(repository, revisions)
    return everybody(repository) if request.matrix and not revisions else current(repository, revisions)


def numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas. Raises ``UsageError``."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise UsageError(f"{text!r} is not numbers separated by commas") from None


def _evaluated(
    repository: Repository, settings: Settings, subjects: list[Subject], request: Request
) -> tuple[list[str], list[Line]]:
    from ..evaluating.cells import Running, evaluate, text
    from ..evaluating.choosing import domains
    from ..evaluating.tables import lines

    names = domains(settings, subjects, request.data, all_of_them=request.matrix)
    texts = {name: text(repository, name, request.split, settings.text) for name in names}
    meter = Meter("Evaluating")
    running = Running(settings.text.block, request.device, request.force, meter)
    table = evaluate(repository, subjects, texts, running)
    meter.end()
    return names, lines(subjects, names, table)


def _print(names: list[str], found: list[Line], split: str, *, as_json: bool) -> None:
    from ..evaluating.tables import cells

    if as_json:
        dump(split=split, models=[line.fields(names) for line in found])
        return
    for row in columns(cells(found, names)):
        data(printable(row))


def _append(path: str, settings: Settings, names: list[str], found: list[Line], split: str) -> None:
    from ..evaluating.tables import log

    text = {"tokenizer": settings.text.tokenizer, "max_length": settings.text.block}
    with open(path, "a", encoding="utf-8") as file:
        file.write(log(found, names, split, text))


def _share(repository: Repository, request: Request) -> None:
    from ..evaluating.results import Results

    if request.share:
        Results(repository.git).share(request.share)


def _fewshot(
    repository: Repository, settings: Settings, subjects: list[Subject], request: Request, *, as_json: bool
) -> None:
    from ..evaluating.cells import placed
    from ..evaluating.fewshot import check, evaluate

    check(request.fewshot)
    found = []
    for item in subjects:
        model = placed(item.load(), request.device)
        found += [
            {"model": item.label, "commit": item.commit, **row.fields()}
            for row in evaluate(model, repository.worktree(), settings.text, request.fewshot)
        ]
    if as_json:
        dump(results=found)
        return
    names = ("model", "task", "shots", "metric", "value", "examples")
    for line in columns([names, *([str(row[name]) for name in names] for row in found)]):
        data(printable(line))

"""``git btm ensemble``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...cli.console import Meter, as_json, columns, data, dump, printable, say
from ...repository import Repository

if TYPE_CHECKING:
    from ..ensembling.ensembles import Ensemble

Function = TypeVar("Function", bound=Callable[..., Any])

_TYPES = click.Choice(["simple-average", "uniform-prior", "cached-prior", "updating-prior", "clustering"])
_POSTERIORS = click.Choice(["history", "last-token", "static"])
_commit = click.option("--commit/--no-commit", default=True, help="Commit the file, or only stage it.")
_device = click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1; without it a GPU if there is one.")
_follow = click.option("--follow", is_flag=True, help="Take the experts' branches as they are later, not as now.")


def _mixing(function: Function) -> Function:
    """The options that say how experts are mixed."""
    for option in (
        click.option("--temperature", "sharpness", type=float, help="Of the type clustering: .1 without it."),
        click.option(
            "--clusters",
            type=click.Path(),
            metavar="FILE",
            help="Of the type clustering: what 'domains discover' made.",
        ),
        click.option("--topk", type=int, metavar="K", help="Only the K experts with the largest prior."),
        click.option("--posterior", type=_POSTERIORS, help="What the text before counts: history without it."),
        click.option("--type", "kind", type=_TYPES, help="Which prior: cached-prior if one is given."),
        click.option(
            "--prior", type=click.Path(), metavar="FILE|W,W", help="A file, as 'git btm prior' makes it, or numbers."
        ),
    ):
        function = option(function)
    return function


@click.group()
def ensemble() -> None:
    """Make, change, evaluate and use ensembles of experts.

    An ensemble is a small file, ensembles/NAME.json, that names commits; no weights are copied.

    \b
    Example:
      git btm ensemble create law legal medical --prior priors/legal.json
      git btm ensemble eval law --data legal
      git btm ensemble generate law --prompt 'The court'
    """


@ensemble.command()
@click.argument("name")
@click.argument("experts", nargs=-1, metavar="[EXPERT[=REV]]...")
@_mixing
@_follow
@click.option("-f", "--force", is_flag=True, help="Replace the ensemble of this name, if there is one.")
@_commit
def create(name: str, experts: tuple[str, ...], *, follow: bool, force: bool, commit: bool, **mixing: Any) -> None:
    """Make an ensemble of experts, all without any, and commit it."""
    from ..ensembling.ensembles import Ensemble, check_new, keep, members

    repository = Repository()
    if not force:
        check_new(repository, name)
    made = _mixed(Ensemble(members(repository, experts, follow=follow)), **mixing)
    _kept(keep(repository, name, made, f"Make the ensemble {name}", commit=commit))


@ensemble.command()
@click.argument("name")
@click.argument("experts", nargs=-1, required=True, metavar="EXPERT[=REV]...")
@_mixing
@_follow
@_commit
def add(name: str, experts: tuple[str, ...], *, follow: bool, commit: bool, **mixing: Any) -> None:
    """Add experts to an ensemble, or take newer commits of those that it has.

    A prior over the experts that it had goes, unless --prior gives one for all.
    """
    from ..ensembling.ensembles import added, keep, members, read

    repository = Repository()
    made = _mixed(added(read(repository, name), members(repository, experts, follow=follow)), **mixing)
    words = ", ".join(expert.partition("=")[0] for expert in experts)
    _kept(keep(repository, name, made, f"Add {words} to the ensemble {name}", commit=commit))


@ensemble.command()
@click.argument("name")
@click.argument("experts", nargs=-1, metavar="[EXPERT]...")
@_commit
def rm(name: str, experts: tuple[str, ...], *, commit: bool) -> None:
    """Remove experts from an ensemble, or the whole of it; their shares of the prior are spread."""
    from ..ensembling import filing
    from ..ensembling.ensembles import keep, read, without
    from ..places import ENSEMBLES

    repository = Repository()
    found = read(repository, name)
    if not experts:
        path = filing.name(name, ENSEMBLES)
        _kept(filing.remove(repository, path, f"Remove the ensemble {name}", commit=commit))
        return
    message = f"Remove {', '.join(experts)} from the ensemble {name}"
    _kept(keep(repository, name, without(found, experts), message, commit=commit))


@ensemble.command()
@click.argument("name")
@as_json
def show(name: str, *, as_json: bool) -> None:
    """Show the experts of an ensemble and what each counts before any text is read."""
    from ..ensembling.ensembles import read

    found = read(Repository(), name)
    if as_json:
        dump(name=name, **{key: value for key, value in found.document().items() if key != "version"})
        return
    cut = "" if found.topk is None else f", the {found.topk} largest"
    say(f"{found.type}{cut}; posterior by {found.posterior}")
    rows = zip(found.experts, found.weights, strict=True)
    for line in columns([(member.name, f"{weight:.4f}", member.revision) for member, weight in rows]):
        data(printable(line))


@ensemble.command("eval")
@click.argument("name")
@click.option("--data", "domains", metavar="D[,D]", help="Domains; without it, all of btm.toml.")
@click.option("--split", default="test", show_default=True, help="Which of a domain's texts.")
@click.option("--processes", default=1, show_default=True, help="Processes that share the experts among them.")
@_mixing
@_device
@as_json
def evaluate(  # noqa: PLR0913 - one for each option
    name: str,
    *,
    domains: str | None,
    split: str,
    processes: int,
    device: str | None,
    as_json: bool,
    **mixing: Any,
) -> None:
    """Evaluate an ensemble: its perplexity, and the share that each expert had.

    Options change the ensemble for this time. A process has one expert in memory at a time.
    """
    from ..ensembling.ensembles import read
    from ..ensembling.mixing import Job, over
    from ..ensembling.spreading import spread

    repository, meter = Repository(), Meter("Evaluating")
    found = _mixed(read(repository, name), **mixing)
    job = Job(tuple(domains.split(",")) if domains else (), split, device, meter)
    rows = spread(repository, found, job, processes) if processes > 1 else over(repository, found, job)
    meter.end()
    if as_json:
        dump(name=name, split=split, domains=[row.fields() for row in rows])
        return
    members = [member.name for member in found.experts]
    cells = [["domain", "perplexity", *members]]
    for row in rows:
        cells.append([row.domain, f"{row.score.perplexity:.3f}", *(f"{row.shares[name]:.3f}" for name in members)])
    for line in columns(cells):
        data(printable(line))


@ensemble.command()
@click.argument("name")
@click.option("--prompt", default="", help="What the text begins with.")
@click.option("--tokens", default=100, show_default=True, help="At most so many more.")
@click.option("--sample", type=float, metavar="T", help="Draw at random, at this temperature; else the most likely.")
@click.option("--seed", default=0, show_default=True, help="Of what is random.")
@click.option("--max-loaded", type=int, metavar="M", help="Experts in memory at once; without it, all.")
@_mixing
@_device
@as_json
def generate(  # noqa: PLR0913 - one for each option
    name: str,
    *,
    prompt: str,
    tokens: int,
    sample: float | None,
    seed: int,
    max_loaded: int | None,
    device: str | None,
    as_json: bool,
    **mixing: Any,
) -> None:
    """Write text: each token is drawn from the mixture of the experts, which all read what was written."""
    from ..ensembling.ensembles import read
    from ..ensembling.generation import Drawing
    from ..ensembling.writing import write

    repository = Repository()
    found = _mixed(read(repository, name), **mixing)
    text = write(repository, found, prompt, tokens, Drawing(sample or 0.0, seed, max_loaded, device))
    if as_json:
        dump(name=name, prompt=prompt, text=text)
    else:
        data(prompt + text)


def _mixed(  # noqa: PLR0913 - one for each option
    found: Ensemble,
    *,
    prior: str | None,
    kind: str | None,
    posterior: str | None,
    topk: int | None,
    clusters: str | None,
    sharpness: float | None,
) -> Ensemble:
    """The ensemble with what options change."""
    from ..ensembling.ensembles import prior as read

    changes: dict[str, Any] = {"posterior": posterior, "topk": topk, "clusters": clusters, "temperature": sharpness}
    if prior is not None:
        changes |= {"prior": read(prior, [member.name for member in found.experts]), "type": "cached-prior"}
    if kind is not None:
        changes["type"] = kind
    return replace(found, **{key: value for key, value in changes.items() if value is not None})


def _kept(commit: str) -> None:
    say(f"commit {commit[:10]}" if commit else "nothing was committed")

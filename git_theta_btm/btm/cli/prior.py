"""``git btm prior``."""

from __future__ import annotations

import json

import click

from ...cli.console import Meter, as_json, columns, data, dump, printable, say
from ...repository import Repository


@click.command()
@click.argument("domain")
@click.option("--experts", metavar="A,B,C", help="Which experts; without it, all.")
@click.option("--split", default="valid", show_default=True, help="Which of the domain's texts.")
@click.option("--samples", default=100, show_default=True, help="Windows of it; for ema, batches of two, and one more.")
@click.option("--estimator", type=click.Choice(["em", "ema", "paper"]), default="em", show_default=True)
@click.option("--alpha", default=0.3, show_default=True, help="What a new batch counts, for ema and paper.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write it there, and commit nothing.")
@click.option("--log", type=click.Path(dir_okay=False), help="Write BTM's log there: the prior, batch by batch.")
@click.option("--commit/--no-commit", default=True, help="Commit the file, or only stage it.")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1; without it a GPU if there is one.")
@as_json
def prior(  # noqa: PLR0913 - one for each option
    domain: str,
    *,
    experts: str | None,
    split: str,
    samples: int,
    estimator: str,
    alpha: float,
    output: str | None,
    log: str | None,
    commit: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Estimate how much each expert has to do with DOMAIN, and commit priors/DOMAIN.json.

    Ensembles and merges take the file as their weights. em finds those under which the text is most likely; ema is the
    moving average of BTM's code.

    \b
    Example:
      git btm prior acl --experts legal,medical --samples 50
    """
    from ..ensembling.prior import Estimation, keep, measure

    repository, meter = Repository(), Meter("Estimating")
    names = [name for name in (experts or "").split(",") if name]
    found = measure(repository, names, domain, Estimation(split, samples, estimator, alpha, device, meter))
    meter.end()
    made = keep(repository, found, commit=commit) if output is None else ""
    _write(output, json.dumps(found.document(), indent=2) + "\n")
    _write(log, found.log())
    if as_json:
        dump(**{**found.document(), "best": found.best, "made": made})
        return
    rows = zip(found.subjects, found.weights, found.perplexities, strict=True)
    cells = [(item.label, f"{weight:.4f}", f"{perplexity:.3f}") for item, weight, perplexity in rows]
    for line in columns([("expert", "weight", "perplexity"), *cells]):
        data(printable(line))
    say(f"{domain} is most like {found.best}")


def _write(path: str | None, text: str) -> None:
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

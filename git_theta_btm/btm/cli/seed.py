"""``git btm seed``."""

from __future__ import annotations

import json

import click

from ...cli.console import as_json, columns, data, dump, say
from ...errors import ThetaError, UsageError
from ...repository import Repository
from ..settings import Settings, load
from ..training.committing import Line
from ..training.fleet import outcomes_json, report
from ..training.fleet import train as run
from ..training.requests import Request, seed_stop, settled
from .train import launching, launching_options

DENSE = "dense"


@click.group()
def seed() -> None:
    """Train the model that experts are branched from."""


@seed.command()
@click.option(
    "--balance", default="equal", metavar="equal|proportional|alpha=A|mix=FILE", help="How domains are mixed."
)
@click.option("--dense", is_flag=True, help="The baseline: all domains for all steps, on the branch dense.")
@click.option("--no-optimizer", is_flag=True, help="Leave the state of the training out of commits.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would be done.")
@launching_options
@as_json
def train(  # noqa: PLR0913 - one for each option
    balance: str,
    *,
    dense: bool,
    no_optimizer: bool,
    dry_run: bool,
    pairs: tuple[str, ...],
    launcher: str | None,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Train a seed on the branch that you are on, from where it stands, or from a new model.

    It ends after seed_share of the steps in btm.toml. Each save is a commit on top of the branch: what you commit
    meanwhile stays, and so does what you have not committed, unless it is in the way; then the commits wait in
    refs/btm/runs/, and you are told so. Interrupted, the same command goes on.

    \b
    equal         the same of each domain
    proportional  as if all text were one
    alpha=0.5     size to the power of 0.5
    mix=FILE      a JSON file with the field train_domain_weights

    \b
    Example:
      git btm seed train --balance alpha=0.5 --set steps=2000
    """
    repository = Repository()
    settings = launching(settled(load(repository.worktree()), pairs), launcher, jobs)
    request = _request(repository, settings, balance, dense=dense, optimizer=not no_optimizer)
    if dry_run:
        say(f"{request.ref.removeprefix('refs/heads/')}: to step {request.stop} of {', '.join(request.domains)}")
        return 0
    done = run(repository, [request], settings.launch)
    if as_json:
        dump(trainings=outcomes_json(done))
    else:
        for row in columns(report(done)):
            data(row)
    return int(done[0].state == "failed")


def _request(repository: Repository, settings: Settings, balance: str, *, dense: bool, optimizer: bool) -> Request:
    if not settings.domains:
        raise ThetaError("there are no domains yet: 'git btm data add DOMAIN FILE...'")
    ref = f"refs/heads/{DENSE}"
    if not dense:
        head = repository.git.run("symbolic-ref", "--quiet", "HEAD", check=False)
        ref = head.stdout.decode().strip()
        if not ref:
            raise ThetaError("HEAD is on no branch: 'git switch' to the one that the seed is to be on")
    name, weights = mixture(balance)
    stop = settings.training.steps if dense else seed_stop(settings)
    domains = tuple(weights) if weights else settings.domains
    root = repository.worktree()
    if not Line(repository, ref).tip() and not Line(repository, "HEAD").tip():
        raise ThetaError("there is no commit yet: 'git commit' btm.toml and the text first")
    return Request(root, ref, domains, stop, settings, balance=name, weights=weights, optimizer=optimizer)


def mixture(text: str) -> tuple[str, dict[str, float] | None]:
    """A balance by its name, and the weights of a file if it is one. Raises ``UsageError``."""
    if not text.startswith("mix="):
        from ..data.mixture import Balance

        Balance.parse(text)
        return text, None
    path = text.removeprefix("mix=")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)["train_domain_weights"]
        weights = {str(name): float(weight) for name, weight in sorted(found.items())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} has no train_domain_weights that are numbers by name: {error}") from None
    return f"mix={json.dumps(weights, separators=(',', ':'))}", weights

"""``git btm branch``."""

from __future__ import annotations

import click

from ...cli.console import as_json, columns, data, dump
from ...errors import ThetaError
from ...repository import Repository
from ..experts import experts
from ..training.branching import Branched, Point, existing, from_mixture, parts, weights
from ..training.branching import branch as run


@click.command()
@click.argument("domains", nargs=-1, required=True, metavar="DOMAIN...")
@click.option("--share", type=float, metavar="R", help="At the save nearest to this share of the seed's last step.")
@click.option("--update", type=int, metavar="N", help="At the save nearest to this step.")
@click.option("--last", is_flag=True, help="At the seed's last save; the default.")
@click.option("--from", "source", metavar="REF", help="The branch or commit that the seed is on.")
@click.option("--from-mixture", "mixture", metavar="auto|A=.7,B=.3", help="At the weighted mean of these experts.")
@click.option("--reset", default="dataloader", metavar="WHAT", help="dataloader,optimizer,lr,meters or none.")
@as_json
def branch(  # noqa: PLR0913 - one for each option
    domains: tuple[str, ...],
    share: float | None,
    update: int | None,
    source: str | None,
    mixture: str | None,
    reset: str,
    *,
    last: bool,
    as_json: bool,
) -> None:
    """Make a branch for an expert of each domain, at a commit of the seed. One that is there stays as it is.

    Of two saves as near to a share, one up to 0.5 takes the earlier, one above it the later. The expert goes on from
    the seed with all but what --reset names, as its first commit says. It has the domain's text as HEAD has it.

    With --from-mixture, auto weighs the experts by how likely each makes the text of the new domain.

    \b
    Example:
      git btm branch legal medical --share 0.5
      git btm branch acl --from-mixture auto
    """
    if last and (share is not None or update is not None):
        raise click.UsageError("--last, --share and --update all say where to branch: give one of them")
    if mixture and (last or source or share is not None or update is not None):
        raise click.UsageError("--from-mixture says where to branch: leave out --from, --last, --share and --update")
    repository = Repository()
    point, wanted = Point(share, update), parts(reset)
    done = [
        _mixed(repository, domain, mixture) if mixture else run(repository, domain, point, source, wanted)
        for domain in domains
    ]
    if as_json:
        dump(branches=done)
        return
    rows = [("BRANCH", "STEP", "COMMIT", "")]
    rows += [(item.branch, str(item.step), item.commit[:10], "" if item.new else "was there") for item in done]
    for row in columns(rows):
        data(row)


def _mixed(repository: Repository, domain: str, mixture: str) -> Branched:
    if found := existing(repository.git, domain):
        return found
    if mixture != "auto":
        return from_mixture(repository, domain, weights(mixture))
    from ..ensembling.prior import estimate

    names = [item.branch for item in experts(repository.git)]
    if not names:
        raise ThetaError("there are no experts to mix yet: 'git btm branch' and 'git btm train' make some")
    return from_mixture(repository, domain, estimate(repository, names, domain))

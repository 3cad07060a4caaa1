"""``git btm merge``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import click

from ...cli.console import as_json, columns, data, dump, say
from ...cli.recipes import Pairs, recipe_options
from ...merging.launching import Request, launch, request, settle
from ...repository import Repository
from ..heads import unmerged
from ..merging import WAYS, Contest, Row, Wish
from ..places import TRAINING
from ..settings import load

_HELP = f"Numbers, or {', '.join(WAYS)}."


@click.command()
@click.argument("experts", nargs=-1, required=True)
@click.option("--weights", "way", default="uniform", metavar="WEIGHTS", help=_HELP)
@click.option("--domain", metavar="DOMAIN", help="Whose held-out text decides, and is reported on.")
@click.option("--evaluations", default=40, show_default=True, help="Merges that a search tries at most.")
@click.option("--keep-training", is_flag=True, help="Leave the first expert's optimizer state in the merge.")
@click.option("-m", "--message", metavar="MSG", help="The first line of the commit's message.")
@click.option("-n", "--dry-run", is_flag=True, help="Find the weights and the perplexities, and merge nothing.")
@recipe_options(without=("weights", "device", "recipe"))
@as_json
def merge(  # noqa: PLR0913 - one for each option
    experts: tuple[str, ...],
    way: str,
    domain: str | None,
    evaluations: int,
    keep_training: bool,  # noqa: FBT001
    message: str | None,
    dry_run: bool,  # noqa: FBT001
    pairs: Pairs,
    as_json: bool,  # noqa: FBT001
) -> int:
    """Merge experts into one model, as one commit on this branch.

    \b
    uniform        all the same, which does worse than each expert where domains differ
    prior:DOMAIN   by the domain posterior that 'git btm prior DOMAIN' found: the strongest average
    argmax:DOMAIN  the expert with the largest share of it alone
    greedy         the best expert, and others as long as the average gets no worse on --domain
    search         from the prior, by trying merges on --domain's held-out text

    With --domain the perplexities of the seed, the experts, their ensemble and the merge go into the message. The merge
    has no optimizer state. 'git theta verify' repeats it.

    \b
    Example:
      git btm merge legal medical code --weights prior:acl --domain acl
      git btm merge legal code --weights 0.7,0.3 --strategy ties -o density=0.3
    """
    repository = Repository()
    chosen = dict(pair for pair in pairs if pair[0] in ("sharpen", "top_k"))
    decided = domain or (way.partition(":")[2] or None)
    contest = Contest(repository, load(repository.worktree()), experts, decided)
    contest.listen(partial(click.echo, err=True))
    if not unmerged(repository, contest.experts):
        return _nothing(decided, as_json=as_json)
    sharpen, top = chosen.get("sharpen"), chosen.get("top_k")
    wish = Wish(way, float(sharpen) if sharpen else None, int(top) if top else None, evaluations)
    weights = contest.weights(wish)
    rest = [pair for pair in pairs if pair[0] not in chosen]
    wanted = request(repository, experts, [*rest, ("weights", ",".join(map(repr, weights)))])
    _, settled = settle(repository, wanted)
    rows = contest.table(weights, settled.whole("model/model.safetensors")) if decided else []
    code = 0 if dry_run else _commit(repository, wanted, _message(message, experts, decided, rows), keep_training)
    if as_json:
        dump(
            domain=decided,
            weights=dict(zip(experts, weights, strict=True)),
            perplexity={row.name: row.perplexity for row in rows},
        )
    else:
        for line in columns([[name, f"{weight:.4g}"] for name, weight in zip(experts, weights, strict=True)]):
            data(line)
        _show(rows)
    return code


def _nothing(domain: str | None, *, as_json: bool) -> int:
    say("Already up to date.")
    if as_json:
        dump(domain=domain, weights={}, perplexity={})
    return 0


def _show(rows: Sequence[Row]) -> None:
    for line in columns([[row.name, f"{row.perplexity:.4g}"] for row in rows]):
        data(line)
    ours = next((row.perplexity for row in rows if row.name == "this merge"), None)
    others = [row for row in rows if row.name not in ("this merge", "ensemble", "uniform merge", "seed")]
    best = min(others, key=lambda row: row.perplexity, default=None)
    if ours is not None and best and ours > best.perplexity * 1.01:
        say(f"theta: {best.name} alone is better on this domain: {best.perplexity:.4g}")


def _message(first: str | None, experts: Sequence[str], domain: str | None, rows: Sequence[Row]) -> str:
    subject = first or f"merge of {', '.join(experts)}"
    if not rows:
        return subject
    table = "\n".join(f"    {line}" for line in columns([[row.name, f"{row.perplexity:.4g}"] for row in rows]))
    return f"{subject}\n\nPerplexity on {domain} (test):\n\n{table}\n"


def _commit(repository: Repository, wanted: Request, message: str, keep: bool) -> int:  # noqa: FBT001
    """One commit with all parents, and without the state of any optimizer."""
    code = launch(repository, wanted, ["--no-ff", "--quiet", "--no-edit", "-m", message])
    git = repository.git
    if code or keep or not git.fields("ls-files", "-z", "--", TRAINING):
        return code
    git.run("rm", "-r", "--quiet", "--force", "--", TRAINING)
    quiet = ("-c", f"core.hooksPath={os.devnull}")  # hooks have had their say
    return git.attached(*quiet, "commit", "--amend", "--quiet", "--no-edit", "--cleanup=verbatim")

"""``git btm domains``: which domains there are, and where their names come from."""

from __future__ import annotations

import click

from ...cli import console
from ...errors import UsageError
from ...repository import Repository
from .. import settings
from ..data import adding, committing, splitting
from ..data.committing import Change
from ..data.documents import FIELD
from ..data.presets import PRESETS, named, preset
from ..data.reading import Document, Layout, Reader
from ..data.texts import listed
from ..experts import experts
from .data import keep, uncommitted


@click.group()
def domains() -> None:
    """Domains: known lists of them, and clusters of documents that nobody named."""


@domains.command("preset")
@click.argument("name", type=click.Choice(list(PRESETS)))
@click.option("--list", "only_list", is_flag=True, help="Print the names, and change nothing.")
@uncommitted
def known(name: str, *, only_list: bool, no_commit: bool) -> None:
    """Add the domains of a known list to btm.toml: btm8, btm8-eval, btm64, pile22."""
    if not only_list:
        repository = Repository()
        committing.enlist(repository, preset(name))
        keep(repository, Change(), f"btm: domains of {name}", commit=not no_commit)
    for domain in preset(name):
        console.data(domain)


@domains.command("ls")
@console.as_json
def ls(*, as_json: bool) -> None:
    """List the domains of btm.toml, whether there is text of each, and whether an expert."""
    repository = Repository()
    texts: dict[str, list[str]] = {}
    for domain, part in listed(repository):
        texts.setdefault(domain, []).append(part)
    trained = {found.checkpoint.domain for found in experts(repository.git)}
    names = settings.load(repository.worktree()).domains
    rows = [{"domain": name, "splits": texts.get(name, []), "expert": name in trained} for name in names]
    if as_json:
        console.dump(domains=rows)
        return
    cells = [[name, ", ".join(texts.get(name, [])) or "no text", "expert" if name in trained else ""] for name in names]
    for line in console.columns(cells):
        console.data(line)


@domains.command()
@click.argument("files", nargs=-1, type=click.Path())
@click.option("-k", "count", default=8, help="Clusters.")
@click.option("--from", "source", metavar="DOMAIN", help="Divide the text of a domain, instead of files.")
@click.option("--name", default="cluster", help="What they are called, with a number from 0 each.")
@click.option("--field", default=FIELD, help="Where the text is, in JSON and tables.")
@click.option("--paragraphs", is_flag=True, help="Of plain text, make each block between empty lines a document.")
@click.option("--splits", default=splitting.DEFAULT, help="Parts of train, valid and test.")
@click.option("--seed", default=0, help="Decides where clusters begin.")
@uncommitted
def discover(files: tuple[str, ...], count: int, source: str | None, name: str, **options: object) -> None:
    """Divide documents into clusters of one size by their words, and make each a domain.

    clusters/NAME.npz and clusters/NAME.json keep what tells how near a text is to each, so that experts can be weighed
    by it. All documents are held in memory.

    \b
    Example:
      git btm domains discover -k 8 corpus.jsonl.zst
    """
    from ..data import discovery

    repository, name = Repository(), named(name)
    if bool(files) == bool(source):
        raise UsageError("name files, or a domain by --from, and not both")
    taken = {domain for domain, _ in listed(repository)}.intersection(f"{name}{number}" for number in range(count))
    if taken:
        raise UsageError(
            f"there is text of {min(taken)} already: take another --name, or 'git btm data rm {min(taken)}'"
        )
    if source:
        texts = [content for _, content in adding.everything(repository, source)]
    else:
        reader = Reader(Layout(str(options["field"]), paragraphs=bool(options["paragraphs"])))
        texts = [document.text for document in reader.documents(files)]
    clusters, labels = discovery.discover(texts, count, int(str(options["seed"])))
    found = (Document(content, f"{name}{label}") for content, label in zip(texts, labels, strict=True))
    added = adding.add(repository, found, None, splitting.parse(str(options["splits"])))
    paths = [*discovery.save(clusters, repository.worktree(), name), *added.paths]
    committing.enlist(repository, added.domains)
    keep(repository, Change(paths), f"btm: {count} domains discovered", commit=not options["no_commit"])
    for domain in added.domains:
        console.data(
            f"{domain}  {console.number(sum(n for (d, _), n in added.counts.items() if d == domain), 'document')}"
        )

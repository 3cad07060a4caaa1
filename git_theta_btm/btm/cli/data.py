"""``git btm data``: the text of domains."""

from __future__ import annotations

import os

import click

from ...cli import console
from ...errors import ThetaError, UsageError
from ...repository import Repository
from .. import settings
from ..data import adding, committing, holdings, sharding, splitting
from ..data.committing import Change
from ..data.documents import FIELD
from ..data.mixing import General
from ..data.mixing import mix as mixture
from ..data.presets import named
from ..data.reading import Layout, Reader
from ..places import DATA, SPLITS, text

uncommitted = click.option("--no-commit", is_flag=True, help="Stage what changes, and do not commit it.")
revisions = click.option("--revision", metavar="REVISION", help="Look into a commit, which is not checked out.")


@click.group()
def data() -> None:
    """Text: what there is for each domain, in splits, one document a line."""


@data.command()
@click.argument("names", nargs=-1, required=True, type=click.Path(), metavar="[DOMAIN] FILE...")
@click.option("--splits", default=splitting.DEFAULT, help="Parts of train, valid and test.")
@click.option("--split", type=click.Choice(SPLITS), help="Put every document here.")
@click.option("--field", default=FIELD, help="Where the text is, in JSON and tables.")
@click.option("--domain-field", default="", metavar="FIELD", help="Where the domain is: meta.pile_set_name.")
@click.option("--paragraphs", is_flag=True, help="Of plain text, make each block between empty lines a document.")
@click.option("--skip-bad", is_flag=True, help="Leave out, and count, lines that hold no document.")
@uncommitted
@console.as_json
def add(names: tuple[str, ...], splits: str, split: str | None, **options: object) -> None:
    """Add the documents of files to a domain, and commit them.

    Files are JSON lines, plain text (one document each), Parquet, or folders: of such files, or data sets of Hugging
    Face's; .gz and .zst are read too. A document's own text decides its split, so it stays in it. One that is there
    already is not added again.

    With --domain-field, DOMAIN takes the documents that say it; if the first name is a file, each goes to its own.

    \b
    Examples:
      git btm data add legal contracts/ statutes.jsonl.gz
      git btm data add --domain-field meta.pile_set_name 00.jsonl.zst
    """
    repository = Repository()
    settings.load(repository.worktree())
    field, own = str(options["field"]), str(options["domain_field"])
    domain = None if own and os.path.exists(names[0]) else names[0]
    files = names if domain is None else names[1:]
    if domain is not None:
        named(domain)
    if not files:
        raise UsageError(f"which files? git btm data add {names[0]} FILE...")
    parts = {split: 1.0} if split else splitting.parse(splits)
    reader = Reader(Layout(field, own, bool(options["paragraphs"])), skip_bad=bool(options["skip_bad"]))
    added = adding.add(repository, reader.documents(files), domain, parts)
    added.bad = reader.bad
    if own and not added.counts and not added.duplicates:
        raise ThetaError(f"no document says that it is of {domain}" if domain else "there is no document")
    committing.enlist(repository, added.domains)
    keep(repository, Change(added.paths), f"btm: data of {_names(added.domains)}", commit=not options["no_commit"])
    _report(repository, added, as_json=bool(options["as_json"]))


@data.command()
@click.argument("domain")
@click.option("--splits", default=splitting.DEFAULT, help="Parts of train, valid and test.")
@uncommitted
@console.as_json
def split(domain: str, splits: str, *, no_commit: bool, as_json: bool) -> None:
    """Divide a domain's documents into splits anew. Each document's own text decides."""
    repository, domain = Repository(), named(domain)
    added = adding.resplit(repository, domain, splitting.parse(splits))
    paths = [text(domain, part) for part in SPLITS if os.path.exists(repository.absolute(text(domain, part)))]
    keep(repository, Change(paths), f"btm: splits of {domain}", commit=not no_commit)
    _report(repository, added, as_json=as_json)


@data.command()
@click.argument("domain")
@click.option("--general-ratio", default=1.0, help="General documents for each of the domain's.")
@click.option("--from", "of", multiple=True, metavar="DOMAIN", help="Where they come from; all domains by default.")
@click.option("--exclude-domain", is_flag=True, help="Take none that the domain itself has.")
@click.option("--seed", default=0, help="Decides which are taken, and the order.")
@uncommitted
@console.as_json
def mix(domain: str, general_ratio: float, of: tuple[str, ...], seed: int, **options: bool) -> None:
    """Mix a domain's text with general text: train_mix is both, valid_general and test_general what is general.

    The domain's own train, valid and test stay as they are.
    """
    repository, domain = Repository(), named(domain)
    general = General(general_ratio, of, options["exclude_domain"], seed)
    counts = mixture(repository, domain, general)
    keep(
        repository,
        Change([text(domain, part) for part in counts]),
        f"btm: mix of {domain}",
        commit=not options["no_commit"],
    )
    if options["as_json"]:
        console.dump(domain=domain, documents=counts)
        return
    for line in console.columns([[part, console.number(count, "document")] for part, count in counts.items()]):
        console.data(line)


@data.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--lines", default=100_000, help="Lines in a shard.")
@click.option("--output", type=click.Path(exists=True, file_okay=False), help="The folder that shards go to.")
@click.option("--delete", is_flag=True, help="Delete the file when its shards were read again and are all of it.")
@console.as_json
def shard(file: str, lines: int, output: str | None, *, delete: bool, as_json: bool) -> None:
    """Cut a file of lines into files of so many lines, NAME_0, NAME_1, ..., compressed as it is."""
    written = sharding.shard(file, lines, output, delete=delete)
    if as_json:
        console.dump(shards=[{"file": name, "lines": count} for name, count in written])
        return
    for line in console.columns([[console.shown(name), console.number(count, "line")] for name, count in written]):
        console.data(line)


@data.command("ls")
@revisions
@console.as_json
def ls(revision: str | None, *, as_json: bool) -> None:
    """List the files of all domains and their sizes."""
    _table(list(holdings.sizes(Repository(), revision)), as_json=as_json)


@data.command()
@revisions
@console.as_json
def stats(revision: str | None, *, as_json: bool) -> None:
    """Count documents, bytes and tokens of all domains; a digest names the content of each file."""
    repository = Repository()
    by = settings.load(repository.worktree()).text
    _table(list(holdings.counted(repository, by, revision)), as_json=as_json)


@data.command()
@click.argument("domain")
@uncommitted
def rm(domain: str, *, no_commit: bool) -> None:
    """Remove a domain's text, and the domain from btm.toml. Commits keep it; its branch stays."""
    repository, domain = Repository(), named(domain)
    folder = f"{DATA}/{domain}"
    held = bool(repository.git.fields("ls-files", "-z", "--", folder))
    if held:
        repository.git.run("rm", "-r", "--quiet", "--", folder)
    if not committing.delist(repository, domain) and not held:
        raise ThetaError(f"there is no domain {domain!r}: 'git btm domains ls' lists all")
    keep(repository, Change(gone=[folder] if held else []), f"btm: without {domain}", commit=not no_commit)


def keep(repository: Repository, change: Change, message: str, *, commit: bool) -> None:
    """Stage a change, commit it unless told not to, and say so."""
    if committing.keep(repository, change, message, commit=commit):
        console.say(f"committed: {message}")


def _names(domains: list[str]) -> str:
    return ", ".join(domains) if len(domains) <= 4 else console.number(len(domains), "domain")


def _report(repository: Repository, added: adding.Added, *, as_json: bool) -> None:
    counts: dict[str, dict[str, int]] = {}
    for (domain, part), count in sorted(added.counts.items()):
        counts.setdefault(domain, dict.fromkeys(SPLITS, 0))[part] = count
    if as_json:
        console.dump(added=counts, duplicates=added.duplicates, other=added.other, bad=added.bad)
        return
    rows = [[domain, *(f"{part} {number[part]}" for part in SPLITS)] for domain, number in counts.items()]
    for line in console.columns(rows) or ["nothing new"]:
        console.data(line)
    for count, what in ((added.duplicates, "there already"), (added.other, "of other domains"), (added.bad, "bad")):
        if count:
            console.say(f"{console.number(count, 'document')} {what}: not added")
    for domain in counts:
        missing = [part for part in SPLITS if not os.path.exists(repository.absolute(text(domain, part)))]
        if missing:
            console.say(
                f"{domain} has nothing in {' and '.join(missing)}: add more, smaller documents (--paragraphs), or "
                f"'git btm data add {domain} FILE... --split {missing[0]}'"
            )


def _table(found: list[holdings.Holding], *, as_json: bool) -> None:
    if as_json:
        console.dump(files=found)
        return
    rows = []
    for item in found:
        row = [item.domain, item.split, console.size(item.bytes)]
        if item.digest is not None:
            row += [f"{item.documents} documents", f"{item.tokens} tokens", item.digest[:12]]
        rows.append(row)
    for line in console.columns(rows):
        console.data(line)

"""Known lists of domains, and how their names become names of branches."""

from __future__ import annotations

import os
import re

from ...errors import UsageError

# Branch-Train-Merge (arXiv:2208.03306) at 8 domains: what the experts are trained on, and what they never see.
_TRAINED = "1b anonymized_openwebtext anonymized_realnews anonymized_reviews cs legal med reddit"
_UNSEEN = "latest_news tweets yelp cord19 github gutenberg legal_contracts qasper"
# The further 56 of its experiment with 64.
_SCALED = """
2021newscrawl Biology Books Business C# C++ CSS C Chemistry ClothingShoesandJewelry Economics Electronics Engineering GO
Geography Geology HTML History HomeandKitchen JavaScript Java Markdown Mathematics MoviesandTV PHP Philosophy Physics
Psychology Python Ruby Sociology SportsandOutdoors acl anonymizedyelpreviewsredodemixpaper art bookcorpus c4
codecontests cord19 dmmathematics envsci gamingcomments gutenberg hackernews materials na opensubtitles polisci
sportscomments stackexchange stackoverflow stories supremecourt twitter uspto wikipedia
"""
# The subsets of the Pile (arXiv:2101.00027), as the field meta.pile_set_name spells them.
_PILE = (
    "Pile-CC", "PubMed Central", "Books3", "OpenWebText2", "ArXiv", "Github", "FreeLaw", "StackExchange",
    "USPTO Backgrounds", "PubMed Abstracts", "Gutenberg (PG-19)", "OpenSubtitles", "Wikipedia (en)", "DM Mathematics",
    "Ubuntu IRC", "BookCorpus2", "EuroParl", "HackerNews", "YoutubeSubtitles", "PhilPapers", "NIH ExPorter",
    "Enron Emails",
)  # fmt: skip
PRESETS: dict[str, tuple[str, ...]] = {
    "btm8": tuple(_TRAINED.split()),
    "btm8-eval": tuple(_UNSEEN.split()),
    "btm64": (*_TRAINED.split(), *_SCALED.split()),
    "pile22": _PILE,
}
_BRANCHES = {"C#": "C-sharp", "C++": "C-plus-plus", "Gutenberg (PG-19)": "Gutenberg", "Wikipedia (en)": "Wikipedia"}
# Other spellings than by case, blanks and punctuation, which do not count.
_ALIASES = {"Gutenberg": "Gutenberg (PG-19)", "Wikipedia": "Wikipedia (en)"}
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")


def preset(name: str) -> tuple[str, ...]:
    """The domains of a list, as names of branches. Raises ``UsageError`` if there is none of this name."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}: there are {', '.join(PRESETS)}")
    return tuple(map(branch, PRESETS[name]))


def branch(name: str) -> str:
    """A domain's name as one that git takes for a branch, and every shell for one word: ``C-sharp`` for ``C#``.

    What is one already stays what it is. Raises ``UsageError`` if nothing would be left of it.
    """
    found = _BRANCHES.get(name) or _FOREIGN.sub("-", name)
    found = re.sub(r"\.{2,}", ".", found).strip(".-").removesuffix(".lock")
    if not found or found == "HEAD":
        raise UsageError(f"a domain cannot be called {name!r}: it is to be a branch")
    return found


def named(word: str) -> str:
    """A domain that a command line names, as a branch. Raises ``UsageError`` for a path: its domain was left out."""
    file = "." in word and os.path.isfile(word)
    if file or "/" in word or word.startswith("."):
        raise UsageError(f"{word!r} is a path, and no name of a domain")
    return branch(word)


def subset(name: str) -> str:
    """The domain that a field's value means: a subset of the Pile by any of its spellings, else by its own name."""
    return _SUBSETS.get(_squeezed(name)) or branch(name)


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_SUBSETS = {_squeezed(name): branch(name) for name in _PILE}
_SUBSETS |= {_squeezed(alias): branch(name) for alias, name in _ALIASES.items()}

"""Naming: which parameter of a checkpoint a name means that comes from elsewhere.

The same weight is ``transformer.h.0.attn.c_attn.weight`` in a model with a head and ``h.0.attn.c_attn.weight`` in one
without. A name is first looked up as it is; then leading words are added or taken away, as long as one parameter alone
answers to the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import ThetaError

_WORDS = 3  # leading words that may be added or taken away: "base_model.model.transformer"
_NAMED = 3  # unknown names that a message spells out


class Names:
    """The parameters of one or more checkpoints by their names and by the ends of their names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._whole = set(names)
        self._ends: dict[str, list[str]] = {}
        for name in self._whole:
            for end in _ends(name):
                self._ends.setdefault(end, []).append(name)

    def __contains__(self, name: str) -> bool:
        return name in self._whole

    def find(self, name: str) -> str | None:
        """The parameter that ``name`` means. Raises ``ThetaError`` if it may be several."""
        for wanted in (name, *_ends(name)):
            if wanted in self._whole:
                return wanted
            found = self._ends.get(wanted, [])
            if len(found) > 1:
                raise ThetaError(f"{name} may be {' or '.join(sorted(found)[:_NAMED])}")
            if found:
                return found[0]
        return None

    def unknown(self, names: list[str]) -> ThetaError:
        """What to say of names that no parameter answers to."""
        import difflib  # only an error pays for it

        parts = []
        for name in names[:_NAMED]:
            close = difflib.get_close_matches(name[:500], self._whole, n=2, cutoff=0.5)
            parts.append(f"{name[:500]} (closest: {', '.join(close)})" if close else name[:500])
        more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ThetaError(f"the model has no parameter {'; '.join(parts)}{more}")


def _ends(name: str) -> Iterator[str]:
    """The name without its first word, its first two words, and so on, while what is left still says which it is: two
    words at least, and no number first."""
    words = name.split(".", _WORDS + 2)
    for count in range(1, min(_WORDS + 1, len(words) - 1)):
        if words[count].isdecimal():
            return
        yield ".".join(words[count:])

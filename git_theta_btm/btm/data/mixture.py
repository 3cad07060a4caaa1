"""What a training reads when: blocks of several domains in fixed proportions, as a function of a seed and a number.

Item ``i`` is known without the items before it. So a training resumes at any item, whatever it was interrupted by, and
any number of processes share one order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import gcd, isfinite
from typing import TYPE_CHECKING

from ...errors import UsageError
from ...maths.chance import key, uniform

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PARTS = 1 << 16  # that shares are rounded to: then the order has a period, and a place in it is found at once


@dataclass(frozen=True, slots=True)
class Balance:
    """How much of each domain there is in a mixture: its size to the power of ``alpha``, or a weight of its own.

    0 is the same of each; 1 is in proportion to size, as if all text were one.
    """

    alpha: float = 0.0
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not isfinite(self.alpha) or self.alpha < 0:
            raise UsageError(f"alpha is {self.alpha:g}: it is at least 0, which is the same of each domain")
        for name, weight in (self.weights or {}).items():
            if not isfinite(weight) or weight < 0:
                raise UsageError(f"the weight of {name} is {weight:g}: it is at least 0")

    @classmethod
    def parse(cls, text: str) -> Balance:
        """``equal``, ``proportional`` or ``alpha=0.5``. Raises ``UsageError``."""
        name, sign, value = text.partition("=")
        try:
            if name == "alpha" and sign:
                return cls(float(value))
            return cls({"equal": 0.0, "proportional": 1.0}[text])
        except (KeyError, ValueError):
            raise UsageError(f"a balance is equal, proportional or alpha=0.5, not {text!r}") from None


def shares(sizes: Mapping[str, int], balance: Balance) -> dict[str, float]:
    """The share of each domain, in the order of ``sizes`` (blocks, or tokens); they sum to 1.

    Weights have to name each domain and no other. Raises ``UsageError`` for others, and if nothing would be drawn.
    """
    given = balance.weights
    if given is not None and (wrong := sorted(given.keys() ^ sizes.keys())):
        raise UsageError(f"the weights and the domains differ: {', '.join(wrong)} is only among one of them")
    parts = {
        name: float(given[name]) if given is not None else float(size > 0) * float(size) ** balance.alpha
        for name, size in sizes.items()
    }
    total = sum(parts.values())
    if not total:
        raise UsageError("there is nothing to draw: every domain is empty, or has a weight of 0")
    return {name: part / total for name, part in parts.items()}


class Draws:
    """An endless sequence of blocks, each a domain and a block of it, both counted from 0.

    Among the first ``n`` items, for any ``n`` that is a multiple of the number of domains, each domain has its share of
    ``n`` to within less than one block; with equal shares, exactly. Blocks of a domain come in a new random order in
    each pass over it, each once; a small domain is passed over more often. Shares are rounded to multiples of 2**-16,
    and none but 0 to 0.
    """

    def __init__(self, seed: int, shares: Sequence[float], sizes: Sequence[int]) -> None:
        """``sizes`` are blocks of each domain. Raises ``UsageError`` for a domain that has a share and no block."""
        for number, (share, size) in enumerate(zip(shares, sizes, strict=True)):
            if share > 0 and size < 1:
                raise UsageError(f"domain {number} has no full block to draw: add text, or take smaller blocks")
        self._seed, self._sizes = str(seed), tuple(sizes)
        self._parts = _integers(shares)
        self._window = sum(part > 0 for part in self._parts)
        self._order, self._ranks = _schedule(self._parts)
        self._shuffled: tuple[int, NDArray[np.int64]] | None = None
        self._passes: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def item(self, index: int) -> tuple[int, int]:
        """The domain and the block that are number ``index``."""
        window, offset = divmod(index, self._window)
        slot = window * self._window + int(self._shuffle(window)[offset])
        period, place = divmod(slot, len(self._order))
        domain = self._order[place]
        turn, at = divmod(period * self._parts[domain] + self._ranks[place], self._sizes[domain])
        return domain, int(self._pass(domain, turn)[at])

    def _shuffle(self, window: int) -> NDArray[np.int64]:
        if self._shuffled is None or self._shuffled[0] != window:
            self._shuffled = window, permutation(self._window, self._seed, "window", str(window))
        return self._shuffled[1]

    def _pass(self, domain: int, turn: int) -> NDArray[np.int64]:
        found = self._passes.get(domain)
        if found is None or found[0] != turn:
            found = turn, permutation(self._sizes[domain], self._seed, "pass", str(domain), str(turn))
            self._passes[domain] = found
        return found[1]


def permutation(count: int, *words: str) -> NDArray[np.int64]:
    """The numbers below ``count`` in a random order that the words name: the same on every machine."""
    import numpy as np

    order: NDArray[np.int64] = np.argsort(uniform(key(*words), 0, count), kind="stable")
    return order


def _integers(shares: Sequence[float]) -> list[int]:
    """Shares as integers in the same proportions, ``_PARTS`` of them in all, or few more, if no fewer do."""
    if len({share for share in shares if share}) == 1:
        return [int(share > 0) for share in shares]  # exact, where thirds would not be
    total = sum(shares)
    exact = [_PARTS * share / total for share in shares]
    parts = [max(int(part), int(part > 0)) for part in exact]
    largest_rests = sorted(range(len(parts)), key=lambda number: parts[number] - exact[number])
    for number in largest_rests[: max(0, _PARTS - sum(parts))]:
        parts[number] += 1
    divisor = gcd(*parts)
    return [part // divisor for part in parts]


def _schedule(parts: Sequence[int]) -> tuple[list[int], list[int]]:
    """An order in which domain ``d`` comes ``parts[d]`` times, and how often it came before each of its places.

    Every prefix has each domain's share to within less than one: draw ``j`` of a domain may not come before
    ``j / share``, the least deadline ``(j + 1) / share`` comes first (R. Tijdeman, "The chairman assignment problem",
    Discrete Mathematics 32, 1980).
    """
    period = sum(parts)
    released: dict[int, list[tuple[int, int, int]]] = {}
    for domain, part in enumerate(parts):
        for rank, (release, deadline) in enumerate(_terms(part, period)):
            released.setdefault(release, []).append((deadline, domain, rank))
    order, ranks = [], []
    waiting: list[tuple[int, int, int]] = []
    for place in range(period):
        for draw in released.pop(place, ()):
            heappush(waiting, draw)
        _, domain, rank = heappop(waiting)
        order.append(domain)
        ranks.append(rank)
    return order, ranks


def _terms(part: int, period: int) -> Iterator[tuple[int, int]]:
    for rank in range(part):
        yield rank * period // part, -(-(rank + 1) * period // part)

"""Weights from an ensemble: what share each expert has in the domain at hand, made sharper, and cut to the best.

Branch-Train-Merge (Li et al., arXiv:2208.03306) estimates a posterior over the experts on a little text of the target
domain. The same numbers weigh the experts' parameters. One knob spans its baselines: ``sharpen`` 0 is the uniform mean,
1 the posterior, infinity the most likely expert.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from math import fsum, isfinite
from typing import Any, TypeAlias

from ..errors import ThetaError, UsageError
from ..maths.geometry import steady

Shares: TypeAlias = Mapping[str, float] | tuple[float, ...]  # by the experts' names, or in their order

_TAIL = 1 << 20  # bytes that are read: the last line of a log of any length


def posterior(
    path: str, names: Sequence[str], sharpness: float | None = None, k: int | None = None
) -> tuple[float, ...]:
    """The weights of these experts by a file. Of a file that knows more experts, the shares of the others are spread.

    Raises ``UsageError`` if the file has no share for one of them, or cannot be read.
    """
    shares = read(path)
    if isinstance(shares, tuple):
        if len(shares) != len(names):
            raise UsageError(f"{path}: {len(shares)} shares for {len(names)} models")
        weights = shares
    else:
        for name in names:
            if name not in shares:
                raise UsageError(f"{path}: no share for {name[:80]!r}: it has {', '.join(shares)[:200]}")
        weights = tuple(shares[name] for name in names)
        if len(set(names)) < len(shares):
            weights = _normalized(weights, path)
    return refined(weights, sharpness, k)


def refined(weights: Sequence[float], sharpness: float | None, k: int | None) -> tuple[float, ...]:
    """Weights sharpened, then cut to the ``k`` largest, each if it is asked for."""
    found = tuple(weights) if sharpness is None else sharpen(weights, sharpness)
    return found if k is None else top_k(found, k)


def sharpen(weights: Sequence[float], sharpness: float) -> tuple[float, ...]:
    """``weight ** sharpness``, summing to 1: all the same for 0, as they are for 1, the largest alone for infinity.

    Raises ``UsageError`` for negative numbers, or none above 0.
    """
    if not sharpness >= 0:
        raise UsageError(f"sharpen cannot be {sharpness:g}: it is at least 0")
    if min(weights) < 0 or not max(weights) > 0:
        raise UsageError("only weights of at least 0, and not all of them 0, can be sharpened")
    if sharpness == 1:
        return tuple(weights)
    largest = max(weights)
    return _normalized([steady((weight / largest) ** sharpness) for weight in weights], "sharpen")


def top_k(weights: Sequence[float], k: int) -> tuple[float, ...]:
    """The ``k`` largest weights, summing to 1, and 0 for the rest; of equal ones the first stay. All, if there are no
    more.

    Raises ``UsageError`` for a ``k`` below 1.
    """
    if k < 1:
        raise UsageError(f"top-k cannot be {k}: it is at least 1")
    if k >= len(weights):
        return tuple(weights)
    kept = sorted(range(len(weights)), key=lambda index: (-weights[index], index))[:k]
    return _normalized([weight if index in kept else 0.0 for index, weight in enumerate(weights)], "top-k")


def _normalized(weights: Sequence[float], origin: str) -> tuple[float, ...]:
    whole = fsum(weights)
    if not whole > 0:
        raise UsageError(f"{origin}: the weights of these models sum to {whole:g}")
    return tuple(weight / whole for weight in weights)


# -- files -----------------------------------------------------------------------------------------------------------


def read(path: str) -> Shares:
    """The shares in a file: JSON that maps experts to numbers, ``{"experts": [...], "prior": [...]}``, ``{"prior":
    {...}}``, a list, or a log whose last line has ``exp_avg_posterior``, as BTM writes it.

    Raises ``UsageError`` for a file that has none.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            data = file.read(_TAIL)
        text = (data.partition(b"\n")[2] if size > _TAIL else data).decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no text in UTF-8") from None
    try:
        return parse(text)
    except ThetaError as error:
        raise UsageError(f"{path}: {error}") from None


def parse(text: str) -> Shares:
    """The same of the text of a file. Raises ``UsageError`` for a text that has no shares."""
    lines = text.strip().splitlines()
    try:
        document = _json(text)
    except ValueError:
        try:
            document = _json(lines[-1] if lines else "")
        except ValueError:
            raise UsageError("is no JSON, nor a log whose last line is") from None
    if isinstance(document, dict):
        return _of_mapping(document)
    return tuple(_shares(document, "list"))


def _of_mapping(document: dict[str, Any]) -> Shares:
    for key in ("prior", "exp_avg_posterior"):
        found = document.get(key)
        if isinstance(found, dict):
            return dict(zip(found, _shares(list(found.values()), key), strict=True))
        if isinstance(found, list):
            return _named(document.get("experts"), tuple(_shares(found, key)))
    return dict(zip(document, _shares(list(document.values()), "mapping"), strict=True))


def _named(experts: Any, shares: tuple[float, ...]) -> Shares:
    if experts is None:
        return shares
    if not isinstance(experts, list) or not all(isinstance(name, str) for name in experts):
        raise UsageError("experts has to be a list of names")
    if len(set(experts)) != len(shares) or len(experts) != len(shares):
        raise UsageError(f"{len(shares)} shares for the {len(set(experts))} experts that it names")
    return dict(zip(experts, shares, strict=True))


def _shares(values: Any, key: str) -> list[float]:
    if not isinstance(values, list) or not values:
        raise UsageError(f"{key} has to hold numbers")
    try:
        shares = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    except OverflowError:
        shares = []
    if len(shares) != len(values) or not all(isfinite(share) and share >= 0 for share in shares) or not any(shares):
        raise UsageError(f"{key} has to hold numbers of at least 0, and not only 0")
    return shares


def _json(text: str) -> Any:
    """Raises ``ValueError`` for what is no JSON, or has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UsageError("a key is there twice")
    return found

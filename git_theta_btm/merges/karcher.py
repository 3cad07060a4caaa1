"""Karcher: the direction with the least weighted sum of squared angles to the models', at their mean length.

Karcher, "Riemannian center of mass and mollifier smoothing", CPAM 30 (1977). From the direction of ``sum(a u)``, with
u = tip / |tip| and a the weights over their sum, it goes ``T = sum(a (W / sin W) (u - cos(W) m))`` along the sphere, W
the angle between u and m, until T is short. All these points are sums of the tips, so the iteration needs their
inner products only: one pass over the parameter, where mergekit has two for each step. It has no weights either. As
there, a tensor of zeros has no direction and counts in the mean length. Where there is no direction to start from (the
models cancel, are zero or not finite) the result is the weighted mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import acos, cos, fsum, sin, sqrt
from typing import ClassVar

from ..errors import ThetaError
from ..maths.geometry import cosines, gram, image, length, measurable, steady
from . import Coefficients, Linear, Sides, option

_NOTHING = 1e-8  # of a length of about 1 that is the root of a difference: half of the digits of a float64
_OPPOSITE = -0.999999  # a cosine from which no way leads that its inner products could tell from others
_CANCELLED = 1e-6  # length of a mean of unit vectors whose direction has not three digits left


@dataclass(frozen=True, slots=True, kw_only=True)
class Karcher(Linear):
    """The mean of the models by their angles."""

    shares: ClassVar[bool] = True
    max_iter: int = option(10, "steps at most", low=0, high=1000)
    tol: float = option(1e-5, "a step so short, as an angle, is the last", low=0)

    def choice(self, count: int) -> int | None:
        return 0 if count == 1 else None

    def coefficients(self, sides: Sides) -> Coefficients:
        """Raises ``ThetaError`` if a weight is negative, or all are 0: there need not be one nearest direction."""
        whole = fsum(sides.weights)
        if min(sides.weights) < 0 or not whole:
            raise ThetaError("karcher needs weights that are not negative, and one above 0")
        products = gram((tile.tips for tile in sides.tiles()), len(sides.weights))
        mean = Coefficients(sides.weights, divisor=whole)
        if not measurable(products):
            return mean
        lengths, angles = cosines(products)
        directed = [weight if each else 0.0 for weight, each in zip(sides.weights, lengths, strict=True)]
        start = length(angles, directed)
        if start <= _CANCELLED * whole:
            return mean
        shares = [weight / fsum(directed) for weight in directed]
        point = self._mean(angles, shares, [weight / start for weight in directed])
        size = fsum(weight * each for weight, each in zip(sides.weights, lengths, strict=True)) / whole
        tips = (steady(part / each * size) if each else 0.0 for part, each in zip(point, lengths, strict=True))
        return Coefficients(tuple(tips))

    def _mean(self, angles: list[list[float]], shares: list[float], point: list[float]) -> list[float]:
        """The weights of the unit vectors in their mean, from those of a point to start at."""
        for _ in range(self.max_iter):
            near = [min(1.0, max(-1.0, cosine)) for cosine in image(angles, point)]
            pulls = [share * _stretch(cosine) for share, cosine in zip(shares, near, strict=True)]
            back = fsum(pull * cosine for pull, cosine in zip(pulls, near, strict=True))
            step = [pull - back * part for pull, part in zip(pulls, point, strict=True)]
            size = length(angles, step)
            if size < max(self.tol, _NOTHING):
                break
            moved = [cos(size) * part + sin(size) / size * along for part, along in zip(point, step, strict=True)]
            norm = length(angles, moved)
            point = [part / norm for part in moved]
        return point


def _stretch(cosine: float) -> float:
    """``W / sin W`` for the angle W of a cosine: 0 for the opposite point, to which no way is the shortest."""
    if cosine < _OPPOSITE:
        return 0.0
    sine = sqrt((1 - cosine) * (1 + cosine))
    return acos(cosine) / sine if sine > _NOTHING else 1.0

"""Parameters for tests of strategies, in tiles of any size, of NumPy or torch; and what every strategy promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from git_theta_btm.maths.chance import key
from git_theta_btm.merges import Measures, Sides, Strategy, Tile

Wrap = Callable[[Any], Any]

SHAPES: list[tuple[int, tuple[int, ...]]] = [  # how many tips, and of what shape
    *((2, shape) for shape in ((40, 25), (4, 1), (5, 0), (0,))),
    *((3, shape) for shape in ((), (1,))),
    *((1, (19,)), (64, (3, 5))),
]


def made(count: int, shape: tuple[int, ...] = (40, 25), seed: int = 5) -> tuple[Any, list[Any]]:
    """A base and tips near it. Some changes are 0, some are equal."""
    random = np.random.default_rng(seed)
    base = random.standard_normal(shape)
    deltas = [np.round(random.standard_normal(shape) * 16) / 64 for _ in range(count)]
    return base, [base + delta for delta in deltas]


def sides(base: Any, tips: list[Any], weights: tuple[float, ...], size: int, wrap: Wrap = np.asarray) -> Sides:
    """A parameter in tiles of ``size`` elements, or whole if that is 0."""
    keys = tuple(key("w", str(place)) for place in range(len(tips)))

    def tile(cut: slice) -> Tile:
        arrays = [wrap(array.reshape(-1)[cut] if size else array) for array in (*tips, base)]
        return Tile(tuple(arrays[:-1]), weights, arrays[-1], cut.start, keys)

    def tiles() -> list[Tile]:
        return [tile(slice(at, at + (size or 1))) for at in (range(0, max(1, base.size), size) if size else (0,))]

    return Sides("w", tuple(base.shape), weights, tiles, has_base=True)


def measured(strategy: Strategy, parameter: Sides) -> Measures:
    with np.errstate(all="ignore"):
        return strategy.measure(parameter, strategy.survey([parameter]))


def merged(strategy: Strategy, base: Any, tips: list[Any], weights: tuple[float, ...] = (), size: int = 1 << 16) -> Any:
    """The merged parameter: measured by tiles of 65536 elements, combined by tiles of some size."""
    weights = weights or (1.0,) * len(tips)
    measures = measured(strategy, sides(base, tips, weights, 0 if strategy.whole else 1 << 16))
    tiles = sides(base, tips, weights, 0 if strategy.whole else size).tiles()
    with np.errstate(all="ignore"):
        parts = [strategy.combine(tile, measures).reshape(-1) for tile in tiles]
    return np.concatenate(parts).reshape(base.shape)


def check_tiles(strategy: Strategy) -> None:
    """The size of tiles does not show, whatever the shape; nor does it matter that there are 64 tips, or one."""
    for count, shape in SHAPES:
        base, tips = made(count, shape)
        weights = tuple(1.0 + place % 3 for place in range(count))
        whole = merged(strategy, base, tips, weights)
        assert whole.shape == shape
        assert np.isfinite(whole).all()
        for size in (1, 7):
            np.testing.assert_array_equal(merged(strategy, base, tips, weights, size), whole)


def check_unchanged(strategy: Strategy) -> None:
    """Where no tip differs from the base, the base is the result."""
    base, tips = made(3)
    for tip in tips:
        tip[10:] = base[10:]
    np.testing.assert_array_equal(merged(strategy, base, tips)[10:], base[10:])
    np.testing.assert_array_equal(merged(strategy, base, [base, base]), base)
    np.testing.assert_array_equal(merged(strategy, base, tips, (0.0, 0.0, 0.0)), base)
    assert not merged(strategy, np.zeros(4), [np.zeros(4)] * 2).any()


def check_not_finite(strategy: Strategy) -> None:
    """What is not a number harms no other element, and nothing fails for it."""
    for value in (np.nan, np.inf, -np.inf):
        base, tips = made(3)
        tips[1][3, 4] = value
        result = merged(strategy, base, tips)
        result[3, 4] = 0.0
        assert np.isfinite(result).all()
    huge = [np.full(9, 1.7e308), np.full(9, -1.7e308)]
    assert merged(strategy, np.zeros(9), huge).shape == (9,)


def check_torch(strategy: Strategy) -> None:
    """torch makes the same bits as NumPy."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    base, tips = made(3)
    weights, size = (0.5, 1.0, 0.3), 0 if strategy.whole else 300
    for damage in (0.25, np.nan):
        tips[2][5, 6] = damage
        expected, found = (sides(base, tips, weights, size, wrap) for wrap in (np.asarray, torch.tensor))
        measures = measured(strategy, expected)
        assert measured(strategy, found) == measures
        for one, other in zip(expected.tiles(), found.tiles(), strict=True):
            made_by_torch = strategy.combine(other, measures)
            assert made_by_torch.dtype == torch.float64
            np.testing.assert_array_equal(strategy.combine(one, measures), made_by_torch.numpy())


CHECKS = pytest.mark.parametrize(
    "check", [check_tiles, check_unchanged, check_not_finite, check_torch], ids=lambda check: check.__name__
)

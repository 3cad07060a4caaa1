"""Fisher-weighted averaging against the formula, and where there is no information."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from git_theta_btm.errors import ThetaError, UsageError
from git_theta_btm.merges import Sides, Strategy, Tile
from git_theta_btm.merges.fisher import Fisher

SIZE = 500


def sides(
    tips: list[Any], weights: tuple[float, ...], information: list[Any], step: int = SIZE, shape: tuple[int, ...] = ()
) -> Sides:
    def tiles() -> Iterator[Tile]:
        for start in range(0, len(tips[0]), step):
            cut = slice(start, start + step)
            known = tuple(None if item is None else item[cut] for item in information)
            yield Tile(tuple(tip[cut] for tip in tips), weights, start=start, statistics=known)

    return Sides("layer.weight", shape or (len(tips[0]),), weights, tiles)


def merged(strategy: Strategy, parameter: Sides, *others: Sides) -> Any:
    measures = strategy.measure(parameter, strategy.survey([parameter, *others]))
    return np.concatenate([np.asarray(strategy.combine(tile, measures)) for tile in parameter.tiles()])


def made(count: int, size: int = SIZE) -> tuple[list[Any], list[Any]]:
    random = np.random.default_rng(1)
    tips = [random.standard_normal(size) for _ in range(count)]
    return tips, [random.random(size) ** 4 * 10.0**-place for place in range(count)]


def reference(tips: list[Any], weights: tuple[float, ...], information: list[Any], floor: float = 1e-6) -> Any:
    scaled = [np.maximum(item / np.sqrt(np.mean(item**2)), floor) for item in information]
    above = sum(w * f * tip for w, f, tip in zip(weights, scaled, tips, strict=True))
    return above / sum(w * f for w, f in zip(weights, scaled, strict=True))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 0.1), (5.0, 0.0, 1.0)])
def test_the_formula(weights: tuple[float, ...]) -> None:
    tips, information = made(3)
    result = merged(Fisher(), sides(tips, weights, information))
    np.testing.assert_allclose(result, reference(tips, weights, information), rtol=1e-13)


def test_without_normalising_a_model_that_knows_more_counts_more() -> None:
    tips, information = made(2)
    result = merged(Fisher(normalize=False, floor=1e-30), sides(tips, (1.0, 1.0), information))
    total = information[0] + information[1]
    np.testing.assert_allclose(result, (information[0] * tips[0] + information[1] * tips[1]) / total, rtol=1e-10)


def test_normalising_makes_the_unit_of_the_information_irrelevant() -> None:
    tips, information = made(2)
    scaled = [information[0] * 2.0**-40, information[1] * 2.0**30]
    one, other = (merged(Fisher(), sides(tips, (0.5, 0.5), item)) for item in (information, scaled))
    np.testing.assert_array_equal(one, other)


def test_the_scale_is_that_of_the_whole_model() -> None:
    tips, information = made(2)
    rest = [np.full(SIZE, 3.0), np.full(SIZE, 0.25)]
    result = merged(Fisher(), sides(tips, (1.0, 1.0), information), sides(tips, (1.0, 1.0), rest))
    whole = [np.concatenate(parts) for parts in zip(information, rest, strict=True)]
    expected = reference([np.concatenate([tip, tip]) for tip in tips], (1.0, 1.0), whole)[:SIZE]
    np.testing.assert_allclose(result, expected, rtol=1e-13)


@pytest.mark.parametrize("nothing", [0.0, 1e-12, -1.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_where_nobody_depends_on_it_it_is_the_weighted_mean(*, normalize: bool, nothing: float) -> None:
    tips, _ = made(3)
    empty, rest = [np.full(SIZE, nothing)] * 3, [np.full(SIZE, 10.0), np.full(SIZE, 20.0), np.full(SIZE, 30.0)]
    parameter, other = (sides(tips, (0.5, 0.25, 1.0), item) for item in (empty, rest))
    result = merged(Fisher(normalize=normalize), parameter, other)
    np.testing.assert_allclose(result, (0.5 * tips[0] + 0.25 * tips[1] + tips[2]) / 1.75, rtol=1e-13)


def test_no_information_anywhere_is_no_division_by_zero() -> None:
    tips, _ = made(2)
    result = merged(Fisher(), sides(tips, (1.0, 3.0), [np.zeros(SIZE)] * 2))
    np.testing.assert_allclose(result, (tips[0] + 3 * tips[1]) / 4, rtol=1e-13)


@pytest.mark.parametrize("information", [[], [None, None]])
def test_a_parameter_without_statistics_gets_the_weighted_mean(information: list[Any]) -> None:
    tips, _ = made(2)
    result = merged(Fisher(), sides(tips, (1.0, 3.0), information))
    np.testing.assert_array_equal(result, (tips[0] + 3 * tips[1]) / 4)


@pytest.mark.parametrize("step", [1, 7])
def test_tiles_do_not_show(step: int) -> None:
    tips, information = made(4)
    strategy, parameter = Fisher(), sides(tips, (1.0,) * 4, information)
    measures = strategy.measure(parameter, strategy.survey([parameter]))
    cut = sides(tips, (1.0,) * 4, information, step)
    parts = [strategy.combine(tile, measures) for tile in cut.tiles()]
    np.testing.assert_array_equal(np.concatenate(parts), merged(strategy, parameter))


@pytest.mark.parametrize("size", [0, 1])
def test_small_parameters(size: int) -> None:
    tips, information = made(2, size)
    parameter = sides(tips, (1.0, 1.0), information, step=1)
    tile = Tile(tuple(tips), (1.0, 1.0), statistics=tuple(information))
    result = Fisher().combine(tile, Fisher().measure(parameter, Fisher().survey([parameter])))
    assert result.shape == (size,)
    assert np.isfinite(result).all()


def test_equal_tips_stay_what_they_are() -> None:
    tips, information = made(64)
    result = merged(Fisher(), sides([tips[0]] * 64, (1 / 64,) * 64, information))
    np.testing.assert_allclose(result, tips[0], rtol=1e-14)


def test_nan_and_infinity_go_where_they_were() -> None:
    tips, information = made(2)
    tips[0][3], tips[1][5] = np.nan, np.inf
    result = merged(Fisher(), sides(tips, (1.0, 1.0), information))
    assert np.isnan(result[3])
    assert result[5] == np.inf
    assert np.isfinite(np.delete(result, [3, 5])).all()
    alone = merged(Fisher(), sides(tips, (1.0, 0.0), information))
    np.testing.assert_allclose(np.delete(alone, 3), np.delete(tips[0], 3), rtol=1e-14)  # weight 0: the infinity is out


def test_a_broken_file_of_statistics_is_named() -> None:
    tips, information = made(2)
    information[1][7] = np.nan
    with pytest.raises(ThetaError, match="not finite"):
        Fisher().survey([sides(tips, (1.0, 1.0), information)])


@pytest.mark.parametrize("weights", [(1.0, -0.5), (0.0, 0.0)])
def test_weights_that_are_no_shares(weights: tuple[float, ...]) -> None:
    tips, information = made(2)
    with pytest.raises(ThetaError, match="at least 0"):
        Fisher().measure(sides(tips, weights, information), {})


def test_a_floor_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="floor"):
        Fisher(floor=0.0)


def test_torch_gives_the_same_bits() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    tips, information = made(3)
    arrays = [[torch.from_numpy(item) for item in group] for group in (tips, information)]
    expected = merged(Fisher(), sides(tips, (0.7, 0.2, 0.1), information))
    np.testing.assert_array_equal(merged(Fisher(), sides(arrays[0], (0.7, 0.2, 0.1), arrays[1])), expected)

"""Arcee fusion: the other model's elements where they matter, by exact quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from git_theta_btm.errors import ThetaError
from git_theta_btm.merges import Tile
from git_theta_btm.merges.arcee_fusion import ArceeFusion


def made(shape: tuple[int, ...], spread: float = 0.05) -> tuple[Any, Any]:
    random = np.random.default_rng(8)
    a = random.standard_normal(shape)
    return a, a + spread * random.standard_normal(shape) ** 3


def merged(*tips: Any, base: Any = None) -> Any:
    return ArceeFusion().combine(Tile(tips, (1.0,) * len(tips), base), {})


def reference(a: Any, b: Any) -> Any:
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (b, a))
    importance = abs(b - a) * (p * np.log(p / q)).sum(-1, keepdims=True)
    low, median, high = np.quantile(importance, [0.25, 0.5, 0.75])
    return np.where(importance >= median + 1.5 * (high - low), b, a)


@pytest.mark.parametrize("shape", [(31, 17), (4, 5, 6), (200,), (3000, 37), (3, 40000)])
@pytest.mark.parametrize("spread", [0.01, 0.1, 2.0])
def test_the_formula(shape: tuple[int, ...], spread: float) -> None:
    a, b = made(shape, spread)
    found = merged(a, b)
    assert (found == reference(a, b)).all()
    assert 0 < (found == b).mean() < 0.5
    assert (merged(b, base=a) == found).all()
    assert (merged(a, b, base=a * 0) == found).all()


def test_a_row_that_changed_much_matters() -> None:
    a = np.random.default_rng(0).standard_normal((10, 8))
    b = a + 1e-3 * a**2
    b[4] += a[5]
    taken = merged(a, b) == b
    assert taken[4].all()
    assert np.delete(taken, 4, axis=0).mean() < 0.2


def test_equal_models() -> None:
    a, _ = made((3, 4))
    assert (merged(a, a.copy()) == a).all()
    assert ArceeFusion.ordered
    assert ArceeFusion.whole
    with pytest.raises(ThetaError, match="base"):
        merged(a)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (3, 1)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    a, b = (np.asarray(array) for array in made(shape))
    found = merged(a, b)
    assert found.shape == shape
    assert ((found == a) | (found == b)).all()


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_kept_and_not_taken(strange: float) -> None:
    a, b = made((12, 9))
    a[2, 3], b[5, 1] = strange, strange
    with np.errstate(invalid="ignore", over="ignore"):
        found = merged(a, b)
    assert not np.isfinite(found[2, 3])
    assert np.isfinite(found).sum() == found.size - 1
    assert (found == b).any()


def test_a_row_that_is_not_finite_is_kept() -> None:
    a, b = made((3, 8))
    b[1:, 0] = np.nan
    found = merged(a, b)
    assert (found[1:] == a[1:]).all()
    assert (found[0] == b[0]).any()


def test_torch_computes_the_same_bits() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("array_api_compat")
    a, b = made((12, 9))
    assert merged(torch.from_numpy(a), torch.from_numpy(b)).numpy().tobytes() == merged(a, b).tobytes()
